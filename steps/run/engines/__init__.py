"""Engines, each in LoadGen's process or its own, and the protocol between processes."""

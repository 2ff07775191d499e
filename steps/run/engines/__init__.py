"""Engines, each in LoadGen's process or one of its own, and what crosses between them."""

"""Engines on other nodes: who starts them there, and how they connect."""

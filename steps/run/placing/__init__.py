"""Engines on other nodes: what starts them there, and how they connect."""

"""Depth pruning: drops a contiguous block of decoder layers, chosen by hand or by importance."""

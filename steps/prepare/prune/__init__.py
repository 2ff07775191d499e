"""Depth pruning: a contiguous block of decoder layers dropped, chosen by hand or by importance."""

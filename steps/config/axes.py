"""The axes of the matrix."""

AXES = ("system", "benchmark", "compression", "precision", "scenario")
"""In the order of a cell's path."""

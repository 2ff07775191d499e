"""Comparisons of results: with published rows, of two results, of a system with its parts."""

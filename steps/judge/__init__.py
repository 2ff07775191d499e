"""Verdicts on runs: validity, accuracy, compliance."""

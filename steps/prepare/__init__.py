"""Artifacts before any run: models, datasets, changed weights."""

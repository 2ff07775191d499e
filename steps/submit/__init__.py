"""The submission tree, its rules, its provenance."""

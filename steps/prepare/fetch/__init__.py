"""Models and datasets from elsewhere, every file checked against its digest."""

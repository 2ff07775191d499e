"""A submission tree from the layout of one round to that of another."""

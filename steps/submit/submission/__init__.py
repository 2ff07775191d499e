"""The submission tree of an experiment, in its round's layout, and what is kept beside it."""

"""The submission tree of an experiment, in its round's layout, and the files kept beside it."""

"""What is said of a job or pod that waits for a node."""

SAID_FIRST_S = 300.0
"""It is reported after this time, then whenever the time has doubled."""

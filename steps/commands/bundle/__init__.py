"""One archive that sets up a machine without network."""

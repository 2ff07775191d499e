"""One archive from which a machine without network is set up."""

"""Run a step's command in a container: the same command, paths and results as natively."""

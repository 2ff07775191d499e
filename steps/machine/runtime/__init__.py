"""Run a step's command in a container: the command, paths and results are the same as natively."""

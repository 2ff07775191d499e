"""Who runs the jobs of a plan: this machine, or a cluster's scheduler."""

"""A plan on Kubernetes: each job that needs a node is a Job, made and watched by a command."""

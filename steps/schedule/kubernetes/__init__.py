"""A plan on Kubernetes: each job that needs a node is a Job, created and watched by a command."""

"""Runs the jobs of a plan on this machine or with a cluster's scheduler."""

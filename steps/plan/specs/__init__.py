"""One file per step, named as the step; steps/plan/registry.py collects them."""

"""From composed cells to a frozen plan: registry, planner, estimates, what can't be executed."""

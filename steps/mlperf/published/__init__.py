"""Results that MLCommons published, as one tidy table a round; numbers come from nowhere else."""

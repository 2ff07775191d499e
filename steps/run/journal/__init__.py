"""What a machine does beside a run, noted once a second, and what of it disturbs a measurement."""

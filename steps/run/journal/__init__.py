"""What else a machine does during a run, noted once per second, and what disturbs a measurement."""

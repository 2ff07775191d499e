"""Finding target_qps: the highest rate at which a run of the rules' length is VALID."""

"""LoadGen's system under test: samples in, tokens out, one LoadGen run per process."""

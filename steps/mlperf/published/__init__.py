"""Results that MLCommons published, one tidy table per round; no other source is used."""

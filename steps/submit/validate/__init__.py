"""Whether a submission tree holds by the rules of its round: parsers, checks, findings."""

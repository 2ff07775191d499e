"""Whether a submission tree is valid by the rules of its round: parsers, checks, findings."""

"""One statement a submission: what it is made from, sha256 each, in in-toto's form, signable."""

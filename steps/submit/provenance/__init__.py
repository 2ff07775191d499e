"""One statement per submission: the sha256 of all that it is made from, in in-toto's form."""

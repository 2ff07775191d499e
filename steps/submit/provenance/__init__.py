"""One statement per submission: the sha256 of everything it is made from, in in-toto's form,
signable.
"""

"""What can be configured: one file of types per section, and how `conf/` composes to them.

A step's configuration is checked once, before anything runs. It has no defaults: values live in
`conf/`, classes say which are legal, so a missing or misspelt key is an error that names it.
"""

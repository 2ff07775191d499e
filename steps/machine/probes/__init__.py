"""What a machine is made of, read from the tools that know: parsers, one typed record a node."""

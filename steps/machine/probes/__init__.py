"""A machine's components, read from tools that list them: parsers, one typed record per node."""

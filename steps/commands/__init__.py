"""The commands of `./reproduce`: one module or folder each."""

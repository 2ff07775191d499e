"""What `./reproduce` offers: one module or folder a command."""

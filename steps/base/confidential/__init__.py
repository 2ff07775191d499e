"""What may not leave the site: tokens, host names, users, addresses, paths; found and taken out."""

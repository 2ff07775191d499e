"""What is looked for, and the placeholder for it."""

KINDS = {
    "token": "a token",
    "path": "a path of this site",
    "address": "a network address",
    "host": "a host name",
    "user": "a user name",
}
"""In the order in which they are replaced: a path may hold a host, a host's URL a token."""

PLACEHOLDERS = {kind: f"REDACTED_{kind.upper()}" for kind in KINDS}
"""Words that neither a shell nor JSON reads anything into."""

"""What every step rests on: errors, records, console, strict types, untrusted input, redaction."""

"""The page that people open first, and the same facts as JSON and CSV."""

"""Steps, and what plans, judges and reports them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""

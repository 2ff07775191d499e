"""Programming languages whose generated code can be run, and what they are run with."""

from collections.abc import Mapping
from typing import Literal

Language = Literal["cpp", "javascript", "php", "python", "ruby", "typescript"]
"""As MBXP calls them."""

PACKAGES: Mapping[str, Mapping[str, str]] = {
    "cpp": {"g++": "g++"},
    "javascript": {"node": "nodejs"},
    "php": {"php": "php-cli"},
    "python": {"python3": "python3"},
    "ruby": {"ruby": "ruby"},
    "typescript": {"tsc": "node-typescript", "node": "nodejs"},
}
"""A language's programs, each with the Debian package that has it."""

PATH = "/usr/local/bin:/usr/bin:/bin"
"""Where the sandbox finds them: it sees nothing outside /usr."""

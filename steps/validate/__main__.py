"""`python -m steps.validate`: the command without the driver around it."""

import sys

from steps.errors import UserError
from steps.validate.command import command

try:
    raise SystemExit(command(sys.argv[1:]))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from error

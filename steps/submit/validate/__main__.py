"""`python -m steps.submit.validate`: the command without the driver around it."""

import sys

from steps.base.errors import UserError
from steps.submit.validate.command import command

try:
    raise SystemExit(command(sys.argv[1:]))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1) from error

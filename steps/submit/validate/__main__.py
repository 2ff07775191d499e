"""`python -m steps.submit.validate`: the command without the driver around it."""

import sys

from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.submit.validate.command import command

with plain_output():
    try:
        raise SystemExit(command(sys.argv[1:]))
    except UserError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        raise SystemExit(1) from error

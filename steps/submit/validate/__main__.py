"""`python -m steps.submit.validate`: the command without the driver around it."""

import sys

from steps.base.arguments import Parser, UsageError
from steps.base.console import plain_output
from steps.base.errors import UserError, shown
from steps.submit.validate.command import command, declare

with plain_output():
    try:
        parser = Parser(declare, prog="python -m steps.submit.validate")
        raise SystemExit(command(parser.parse_args(sys.argv[1:])))
    except (UsageError, UserError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from error

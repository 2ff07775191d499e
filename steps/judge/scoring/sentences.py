"""Sentences as the reference scripts find them, with NLTK's data from a directory.

The data is `punkt_tab`. The wheel of llama-index-core on PyPI carries it, and
`nltk.download("punkt_tab")` fetches it.
"""

from pathlib import Path

import nltk

from steps.base.errors import UserError


def use(data: Path) -> None:
    """Let this process find sentences; raises UserError unless tokenizers/punkt_tab is in `data`.

    `data` is the directory that NLTK_DATA usually names.
    """
    nltk.data.path[:] = [str(data.resolve())]
    try:
        nltk.sent_tokenize("")
    except (LookupError, OSError, ValueError) as error:
        raise UserError(
            f"{data} has no tokenizers/punkt_tab/english of NLTK's, which finds the sentences; "
            "unpack it there"
        ) from error


def on_lines(text: str) -> str:
    """One sentence a line."""
    return "\n".join(nltk.sent_tokenize(text))

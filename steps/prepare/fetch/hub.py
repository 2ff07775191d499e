"""The hub as the user has set it up: its address, the token, and what that may read. Fetching and
doctor use it; both are found as huggingface_hub finds them.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from steps.base.confidential.known import token_files
from steps.base.errors import UserError
from steps.base.strict import Strict
from steps.base.untrusted import json_of
from steps.config.fetch import Secret
from steps.prepare.fetch.client import Access, Client, RefusedError, Transient, shown

PUBLIC = "https://huggingface.co"
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""Where huggingface_hub looks for a token, before the file that `hf auth login` writes."""

LIMIT_S = 10.0


class Entry(Strict):
    """`state` is "unknown" if the hub's answer doesn't decide it; `reason` is a message."""

    state: Literal["granted", "denied", "unknown"]
    reason: str


def address(endpoint: str, environment: Mapping[str, str] = os.environ) -> str:
    """HF_ENDPOINT replaces the public hub only, not another one that the configuration names."""
    chosen = environment.get("HF_ENDPOINT") if endpoint.rstrip("/") == PUBLIC else None
    return (chosen or endpoint).rstrip("/")


def access(
    endpoint: str, secret: Secret | None, environment: Mapping[str, str] = os.environ
) -> Access:
    """The headers for the hub. Raises UserError for a reference to an absent token, unless
    it is one of VARIABLES: most repositories need none."""
    value, where = token(secret, environment)
    headers = {"Authorization": f"Bearer {value}"} if value else {}
    return Access(host=urlsplit(endpoint).netloc, headers=headers, what=where)


def token(secret: Secret | None, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The token and where it was found; both empty without one."""
    if secret is None:
        return "", ""
    if secret.environment not in VARIABLES:
        return secret.read(environment), str(secret)
    for name in (secret.environment, *VARIABLES):
        if environment.get(name, "").strip():
            found = Secret(environment=name)
            return found.read(environment), str(found)
    for path in token_files(environment):
        if _has_words(path):
            found = Secret(file=str(path))
            return found.read(environment), str(found)
    return "", ""


def _has_words(path: Path) -> bool:
    try:
        return bool(path.read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return False


def may_read(
    endpoint: str,
    repository: str,
    secret: Secret | None,
    environment: Mapping[str, str] = os.environ,
) -> Entry:
    """The hub's auth-check of a model's repository, with the same access as fetching."""
    home = address(endpoint, environment)
    client = Client(stall_limit_s=LIMIT_S, attempts=1, retry_wait_s=0.0)
    try:
        allowed = access(home, secret, environment)
        with client.open("GET", f"{home}/api/models/{repository}/auth-check", allowed):
            return Entry(state="granted", reason="the hub grants access")
    except RefusedError as error:
        if error.status not in (401, 403):
            return Entry(state="unknown", reason=f"the hub answers {error.status}")
        return Entry(state="denied", reason=_denied(error, allowed))
    except Transient as error:
        words = f"the hub can't be reached ({error})"
        return Entry(state="unknown", reason=f"the hub answers {error}" if error.status else words)
    except UserError as error:
        return Entry(state="unknown", reason=f"{error}")


def head(home: str, repository: str, branch: str, allowed: Access, client: Client) -> str:
    """The commit that a branch of a model's repository has now. Raises UserError for a hub that
    can't say."""
    url = f"{home}/api/models/{repository}/revision/{branch}"
    data, _ = client.text(url, allowed)
    try:
        commit = json_of(data)["sha"]
        if re.fullmatch("[0-9a-f]{40}", commit):
            return str(commit)
    except (ValueError, LookupError, TypeError):
        pass
    raise UserError(
        f"{shown(url)} names no commit; is this a hub's endpoint? Set benchmark.model.revision"
    )


def _denied(error: RefusedError, allowed: Access) -> str:
    if error.words:
        return f"the hub says {error.words!r}"
    if error.status == 401:
        return f"the hub refuses {allowed.what}" if allowed.what else "there is no token"
    return "the licence isn't accepted by the token's owner"

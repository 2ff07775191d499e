"""May this user download a gated model? Asks the hub; the token is read and never shown."""

import urllib.error
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Literal

from steps.base.strict import Strict

LIMIT_S = 10.0


class Access(Strict):
    """`state` "unknown": the hub gave no answer that decides it. `reason` in words."""

    state: Literal["granted", "denied", "unknown"]
    reason: str


def access(endpoint: str, repository: str, environment: Mapping[str, str]) -> Access:
    """The hub's auth-check of the repository, with the user's token if there is one."""
    secret = token(environment)
    url = f"{endpoint.rstrip('/')}/api/models/{repository}/auth-check"
    try:
        request = urllib.request.Request(url)
        if secret:
            request.add_unredirected_header("Authorization", f"Bearer {secret}")
        with urllib.request.urlopen(request, timeout=LIMIT_S):
            return Access(state="granted", reason="the hub grants access")
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            reason = "the hub refuses the token" if secret else "there is no token"
            return Access(state="denied", reason=reason)
        if error.code == HTTPStatus.FORBIDDEN:
            return Access(state="denied", reason="the licence isn't accepted by the token's owner")
        return Access(state="unknown", reason=f"the hub answers {error.code}")
    except (OSError, ValueError) as error:
        why = " ".join(str(getattr(error, "reason", None) or error).split())
        return Access(state="unknown", reason=f"the hub can't be reached ({why:.120})")


def token(environment: Mapping[str, str]) -> str:
    """Where huggingface_hub looks: HF_TOKEN, then the file that `hf auth login` writes."""
    if environment.get("HF_TOKEN"):
        return environment["HF_TOKEN"].strip()
    home = environment.get("HF_HOME")
    folder = Path(home) if home else Path.home() / ".cache/huggingface"
    try:
        return (folder / "token").read_text(encoding="utf-8").strip()
    except OSError:
        return ""

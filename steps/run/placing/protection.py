"""Who may use a Ray cluster: unless it asks for a token, every connection to it can run programs as
its user.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping

MODE, TOKEN, TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
"""The variables with Ray's token (2.52 and later; earlier versions have none)."""

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's own way to stay on 127.0.0.1; otherwise, on Linux, it takes the address of the default
route.
"""

ASK_LIMIT_S = 30.0

ASK = """
import sys
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).internal_kv_keys(b"", None, timeout=5)
"""
"""A question that a cluster answers to everybody, or only with its token."""

REFUSED = "AuthenticationError"


def protect() -> None:
    """Give this process, before it imports Ray, a token for the cluster that it makes of this
    machine only.
    """
    os.environ.pop(TOKEN_FILE, None)
    os.environ.update({MODE: "token", TOKEN: secrets.token_hex(32), **LOOPBACK})


def exposed(address: str) -> str | None:
    """A sentence if a cluster answers without a token; asked as a stranger."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", ASK, address],
            env=stranger(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return f"whether Ray's cluster at {address} asks for a token could not be learned"
    if not asked.returncode:
        return (
            f"Ray's cluster at {address} asks for no token: anybody who reaches it over the "
            "network can run programs as its user, and could during this run"
        )
    if REFUSED in asked.stderr:
        return None
    return f"whether Ray's cluster at {address} asks for a token could not be learned"


def stranger(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process on this machine without a token."""
    kept = {key: value for key, value in environment.items() if key not in (TOKEN, TOKEN_FILE)}
    return {**kept, MODE: "disabled", "HOME": os.devnull}

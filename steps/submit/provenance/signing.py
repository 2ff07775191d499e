"""DSSE envelopes, as in-toto signs its statements, by securesystemslib (of TUF and in-toto).

Keys are files: PEM, or OpenSSH's as ssh-keygen makes them. Ed25519, ECDSA and RSA.
"""

import json
from pathlib import Path
from typing import Any

from steps.base.errors import UserError
from steps.base.untrusted import json_of
from steps.submit.provenance.statement import PAYLOAD_TYPE

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def signed(payload: bytes, key: Path) -> str:
    """The envelope's JSON. Raises UserError for a key that can't sign."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import CryptoSigner

    private = _load(key, "private")
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    try:
        envelope.sign(CryptoSigner(private))
    except (Error, ValueError, TypeError) as error:
        raise UserError(
            f"{key} can't sign ({error}); make one with ssh-keygen -t ed25519"
        ) from error
    return json.dumps(envelope.to_dict(), indent=1, sort_keys=True) + "\n"


def opened(text: str, key: Path, name: str) -> bytes:
    """The payload of an envelope with a valid signature of the key; else UserError."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error
    from securesystemslib.signer import SSlibKey

    public = SSlibKey.from_crypto(_load(key, "public"))
    try:
        envelope = Envelope.from_dict(json_of(text))
        envelope.verify([public], 1)
    except (Error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{name} is not signed by the key in {key}: someone else signed it, or it was changed"
        ) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise UserError(f"{name} signs something else ({envelope.payload_type})")
    return bytes(envelope.payload)


def _load(path: Path, kind: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"key {path} can't be read ({error.strerror})") from error
    try:
        if kind == "public":
            ssh = text.startswith((b"ssh-", b"ecdsa-"))
            load = serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key
            return load(text)
        if text.startswith(_OPENSSH):
            return serialization.load_ssh_private_key(text, None)
        return serialization.load_pem_private_key(text, None)
    except TypeError as error:
        raise UserError(
            f"key {path} has a passphrase; give a copy without: ssh-keygen -p -N '' -f COPY"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UserError(
            f"{path} holds no {kind} key in PEM or OpenSSH form; ssh-keygen -t ed25519 makes a pair"
        ) from error

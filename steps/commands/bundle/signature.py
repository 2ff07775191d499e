"""The signature beside a bundle, in the form of OpenSSH, whose ssh-keygen makes and checks it.

The program that unpacks a bundle is inside it, so it can't vouch for it: on the other machine
ssh-keygen checks the bundle before anything of it is run.
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from steps.base.errors import UserError
from steps.commands.bundle.unbundle import NAMESPACE, SELF, SIGN_LIMIT_S, SIGNATURE, SIGNER


def require_key(key: Path) -> None:
    """Raises UserError for a key that can't sign, before anything is fetched."""
    _signed(key, Path(os.devnull))


def sign(key: Path, file: Path) -> Path:
    """Writes FILE.sig; `key`: a private key of OpenSSH's, or one in PEM that it reads."""
    path = signature_of(file)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(_signed(key, file))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def signature_of(file: Path) -> Path:
    """The path of a bundle's signature."""
    return file.with_name(file.name + SIGNATURE)


def how_to_check(name: str, digest: str, *, signed: bool) -> list[str]:
    """Lines for a shell of the other machine; none of them runs anything of the bundle."""
    quoted = shlex.quote(name)
    if not signed:
        return [f"echo {shlex.quote(f'{digest}  {name}')} | sha256sum -c"]
    return [
        f'echo "{SIGNER} $(cat KEY.pub)" > signers',
        f"ssh-keygen -Y verify -f signers -I {SIGNER} -n {NAMESPACE} "
        f"-s {shlex.quote(name + SIGNATURE)} < {quoted}",
    ]


def how_to_unpack(name: str) -> str:
    """The line after those."""
    quoted = shlex.quote(name)
    return f"tar -xf {quoted} {SELF} && python3.11 {SELF} {quoted} DIRECTORY"


def _signed(key: Path, file: Path) -> bytes:
    tool = shutil.which("ssh-keygen")
    if tool is None:
        raise UserError(
            "--sign needs ssh-keygen, which is missing (apt-get install openssh-client)"
        )
    if not key.is_file():
        raise UserError(f"key {key} is missing; correct the path")
    try:
        with file.open("rb") as stream:
            done = subprocess.run(
                [tool, "-Y", "sign", "-f", str(key.absolute()), "-n", NAMESPACE],
                stdin=stream,
                capture_output=True,
                env={"PATH": os.defpath, "SSH_ASKPASS_REQUIRE": "force", "SSH_ASKPASS": "false"},
                start_new_session=True,  # without a terminal, where a passphrase would be asked for
                timeout=SIGN_LIMIT_S,
            )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{file} took longer than {SIGN_LIMIT_S} s to sign") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise UserError(
            f"{key} can't sign ({said[-1] if said else done.returncode}); it must be a private "
            "key without passphrase that only you may read: ssh-keygen -t ed25519"
        )
    return done.stdout

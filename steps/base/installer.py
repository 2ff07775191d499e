"""What installs packages: uv, from a lock of its own, told where packages are as pip is told.

What a shell or a configuration file says besides (targets, user installs, constraints, paths of
Python) doesn't reach an installation. Nothing is imported but Python's own library.
"""

import ast
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steps.base.errors import UserError

LIMIT_S = 3600.0
ASK_LIMIT_S = 60.0

WHEELS = "wheels"
"""Directory of a checkout that came as a bundle: no index is asked then."""

KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "NETRC"),
    *("LD_LIBRARY_PATH", "XDG_CONFIG_HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""Variables of the shell that an installation sees."""

AS_UV_SAYS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "client-cert": "SSL_CLIENT_CERT",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "no-index": "UV_NO_INDEX",
}
"""What of pip's configuration counts: where packages are and how they are reached."""

Heard = Callable[[str], object]


def isolated() -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def sources(python: Path, root: Path) -> dict[str, str]:
    """Of pip's configuration files and variables what says where packages are, by pip's names.

    A checkout that came as a bundle has its own.
    """
    if (root / WHEELS).is_dir():
        return {"no-index": "1", "find-links": str((root / WHEELS).resolve())}
    said = subprocess.run(
        [str(python), "-I", "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ASK_LIMIT_S,
    )
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"pip can't read its configuration: {last:.200}; mend it and run again")
    found: dict[str, dict[str, str]] = {}
    for line in said.stdout.splitlines():
        key, assigned, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if assigned and name in AS_UV_SAYS:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value)).strip()
    merged = {**found.get("global", {}), **found.get("install", {}), **found.get(":env:", {})}
    return {name: value for name, value in merged.items() if value}


def for_pip(given: Mapping[str, str]) -> dict[str, str]:
    """In variables, for an address may have a password: command lines are seen by everybody."""
    said = {f"PIP_{name.replace('-', '_').upper()}": value for name, value in given.items()}
    fixed = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**isolated(), **said, **fixed}


def for_uv(given: Mapping[str, str]) -> dict[str, str]:
    """The same for uv, which would take the first index that knows a package and look no further.

    pip looks at all; every file has its digest in the lock, so none can put in another.
    """
    said = {AS_UV_SAYS[name]: value for name, value in given.items()}
    kept = isolated()
    if "proxy" in given:
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if name in kept:
            said.setdefault("SSL_CERT_FILE", kept[name])
    if not {"SSL_CERT_FILE", "SSL_CERT_DIR"} & (said.keys() | kept.keys()) and _has_authorities():
        said["UV_SYSTEM_CERTS"] = "1"
    if "find-links" in given:
        said["UV_FIND_LINKS"] = ",".join(given["find-links"].split())
    said.pop("UV_NO_INDEX", None)
    return {**kept, "UV_INDEX_STRATEGY": "unsafe-best-match", "UV_NO_CONFIG": "1", **said}


def bring_pip(python: Path, heard: Heard) -> str:
    """The pip that every Python has with it; what is wrong, or nothing."""
    wrong = run([str(python), "-I", "-m", "ensurepip", "--default-pip"], isolated(), heard)
    if "No module named" in wrong:
        return f"{wrong}; on Debian install python3-venv"
    return wrong


def _has_authorities() -> bool:
    """Of certificates, this machine's: a site's own are among them, and not in uv's list."""
    return bool(ssl.create_default_context().get_ca_certs())


def pip(python: Path, lock: Path, given: Mapping[str, str], heard: Heard) -> str:
    """Installs uv itself; what is wrong, or nothing."""
    command = [
        *(str(python), "-I", "-m", "pip", "install", "--no-deps", "--no-input"),
        *("--require-hashes", "--only-binary", ":all:", "-r", str(lock)),
    ]
    return run(command, for_pip(given), heard)


def uv(
    tool: Path, python: Path, locks: Sequence[Path], given: Mapping[str, str], heard: Heard
) -> str:
    """Exactly the locks, compiled; what is wrong, or nothing.

    A package without a wheel is built with what the tool's own lock pins. Downloads wait in a
    directory beside the environment, which is the caller's to remove: an ended installation
    doesn't fetch them again. Files are linked from it, and so must not be anybody else's.
    """
    command = [
        *(str(tool / "bin/uv"), "pip", "install", "--no-deps", "--require-hashes"),
        *("--require-build-hashes", "--preview-features", "build-dependency-hashes"),
        *("--build-constraints", str(tool / "lock"), "--compile-bytecode", "--no-progress"),
        *("--color", "never", "--no-python-downloads"),
        *("--cache-dir", str(downloads(python.parent.parent)), "--python", str(python)),
    ]
    command += flags(given)
    command += [part for lock in locks for part in ("-r", str(lock))]
    return run(command, for_uv(given), heard)


def flags(given: Mapping[str, str]) -> list[str]:
    """What uv reads from no variable."""
    return ["--no-index"] if "no-index" in given else []


def downloads(home: Path) -> Path:
    return home.with_name(f"{home.name}.downloads")


def run(command: list[str], environment: dict[str, str], heard: Heard) -> str:
    """`heard` gets each line. What is wrong, as the last error and its causes say; or nothing."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        close_fds=False,  # whoever waits for this environment waits for its installer too
    )
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    lines = []
    try:
        assert process.stdout is not None
        for line in process.stdout:
            heard(line)
            lines.append(line.strip())
        status = process.wait(LIMIT_S)
    finally:
        timer.cancel()
        process.kill()
    if not status:
        return ""
    return reason(lines) or f"{Path(command[0]).name} ended with status {status}"


def reason(lines: Sequence[str]) -> str:
    """uv's error and the causes below it, pip's last error, else what was said last."""
    found: list[str] = []
    for line in lines:
        kind, _, text = line.partition(": ")
        if kind.lower() == "error":
            found = [text]
        elif kind == "cause" and found:
            found.append(text)
    return ": ".join(found or [line for line in lines if line][-1:])

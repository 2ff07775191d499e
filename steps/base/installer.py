"""Installs packages with uv, itself installed from a lock; where packages are is pip's setting.

Nothing else that a shell or a configuration file sets (targets, user installs, constraints, paths
of Python) reaches an installation. Nothing is imported but Python's own library.
"""

import ast
import os
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steps.base.errors import UserError
from steps.base.locks import agree, overlaid_text

LIMIT_S = 3600.0
ASK_LIMIT_S = 60.0

WHEELS = "wheels"
"""Directory of wheels in a checkout that came as a bundle; with it, no index is used."""

KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "NETRC"),
    *("LD_LIBRARY_PATH", "XDG_CONFIG_HOME", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
"""The shell's variables that an installation gets."""

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
"""The keys of pip's configuration that count: where packages are and how they are reached."""

NO = ("", "0", "n", "no", "f", "false", "off")
"""How pip's configuration says that a switch is off."""

Heard = Callable[[str], object]


def isolated() -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def sources(python: Path, root: Path) -> dict[str, str]:
    """Where packages are, by pip's names, from pip's configuration files and variables.

    A checkout that came as a bundle has its own.
    """
    if (root / WHEELS).is_dir():
        return {"no-index": "1", "find-links": str((root / WHEELS).resolve())}
    try:
        said = subprocess.run(
            [str(python), "-I", "-m", "pip", "config", "list"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_LIMIT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"pip didn't say its configuration in {ASK_LIMIT_S:g} s; run again on a machine that "
            "has less to do"
        ) from error
    if said.returncode:
        last = (said.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"pip can't read its configuration: {last:.200}; fix it and run again")
    found: dict[str, dict[str, str]] = {}
    for line in said.stdout.splitlines():
        key, assigned, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if assigned and name in AS_UV_SAYS:
            found.setdefault(section, {})[name] = str(ast.literal_eval(value)).strip()
    merged = {**found.get("global", {}), **found.get("install", {}), **found.get(":env:", {})}
    if merged.get("no-index", "").lower() in NO:
        merged.pop("no-index", None)
    return {name: value for name, value in merged.items() if value}


def for_pip(given: Mapping[str, str]) -> dict[str, str]:
    """As variables, because an address may hold a password and everybody can see command lines."""
    said = {f"PIP_{name.replace('-', '_').upper()}": value for name, value in given.items()}
    fixed = {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**isolated(), **said, **fixed}


def for_uv(given: Mapping[str, str]) -> dict[str, str]:
    """The same for uv, which by default stops at the first index that has a package.

    pip looks at all of them; the lock has every file's digest, so no index can substitute one.
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
    """Install the pip that comes with Python. Returns what went wrong, or ""."""
    wrong = run([str(python), "-I", "-m", "ensurepip", "--default-pip"], isolated(), heard)
    if "No module named" in wrong:
        return f"{wrong}; on Debian install python3-venv"
    return wrong


def _has_authorities() -> bool:
    """Use this machine's certificates: they include a site's own, which uv's list doesn't."""
    return bool(ssl.create_default_context().get_ca_certs())


def pip(python: Path, lock: Path, given: Mapping[str, str], heard: Heard) -> str:
    """Install uv itself. Returns what went wrong, or ""."""
    command = [
        *(str(python), "-I", "-m", "pip", "install", "--no-deps", "--no-input"),
        *("--require-hashes", "--only-binary", ":all:", "-r", str(lock)),
    ]
    return run(command, for_pip(given), heard)


def uv(
    tool: Path, python: Path, locks: Sequence[Path], given: Mapping[str, str], heard: Heard
) -> str:
    """Install exactly the locks, compiled; of a package in two of them the later one's. Returns
    what went wrong, or "".

    A package without a wheel is built with what the tool's own lock pins. Downloads wait in a
    directory beside the environment, which the caller removes: an interrupted installation doesn't
    fetch them again. Files are linked from it, so nobody else may share it.
    """
    command = [
        *(str(tool / "bin/uv"), "pip", "install", "--no-deps", "--require-hashes"),
        *("--require-build-hashes", "--preview-features", "build-dependency-hashes"),
        *("--build-constraints", str(tool / "lock"), "--compile-bytecode", "--no-progress"),
        *("--color", "never", "--no-python-downloads"),
        *("--cache-dir", str(downloads(python.parent.parent)), "--python", str(python)),
    ]
    command += flags(given)
    if agree(locks):
        command += [part for lock in locks for part in ("-r", str(lock))]
        return run(command, for_uv(given), heard)
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as whole:
        whole.write(overlaid_text(locks))
        whole.flush()
        return run([*command, "-r", whole.name], for_uv(given), heard)


def flags(given: Mapping[str, str]) -> list[str]:
    """Options for which uv reads no variable."""
    return ["--no-index"] if "no-index" in given else []


def downloads(home: Path) -> Path:
    return home.with_name(f"{home.name}.downloads")


def run(command: list[str], environment: dict[str, str], heard: Heard) -> str:
    """`heard` gets each line. Returns the last error with its causes, or ""."""
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
    """uv's error and the causes below it, or pip's last error, or the last line."""
    found: list[str] = []
    for line in lines:
        kind, _, text = line.partition(": ")
        if kind.lower() == "error":
            found = [text]
        elif kind == "cause" and found:
            found.append(text)
    return ": ".join(found or [line for line in lines if line][-1:])

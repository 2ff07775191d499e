"""Checks a package as it is handed over, offline: `submission/`, `provenance/`, nothing else."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from steps.base.errors import UserError, shown
from steps.base.record import MANIFEST, Manifest, sha256_file, strangers
from steps.base.strict import Strict
from steps.submit.provenance.signing import opened
from steps.submit.provenance.statement import Statement, damage, read

FOLDER = "provenance"
STATEMENT = "provenance.json"
ENVELOPE = "provenance.dsse.json"
TREE = "submission"
LOCK = "lock/"
"""The prefix of the roles of an environment's lock."""

BILLS = "sbom/"
VALUES = ("configuration", "code", "host")
"""Kinds without their own files."""


class Checked(Strict):
    """What `verify DIRECTORY --json` prints; `signed`: the signature was checked and holds."""

    directory: str
    files: int
    complaints: tuple[str, ...]
    signed: bool


def verify(directory: Path, signer: Path | None, *, as_json: bool = False) -> int:
    """Print complaints and a total; 0 if the package is valid, else 1. `signer`: a public key."""
    complaints, statement = complaints_of(directory, signer)
    if as_json:
        found = Checked(
            directory=str(directory),
            files=len(statement.subject),
            complaints=tuple(complaints),
            signed=signer is not None and not complaints,
        )
        print(found.model_dump_json(indent=1))
        return 1 if complaints else 0
    for complaint in complaints:
        print(shown(complaint))
    if complaints:
        print(f"{directory} isn't valid: {len(complaints)} complaints")
        return 1
    said = f"signed by the key in {signer}" if signer else "signature not checked (--signer KEY)"
    print(f"{directory}: {len(statement.subject)} files are valid; {said}")
    return 0


def complaints_of(directory: Path, signer: Path | None) -> tuple[list[str], Statement]:
    """Complaints about the package, one phrase each; UserError if it can't be judged at all."""
    home = directory / FOLDER
    statement = read(home / STATEMENT)
    found = _unsigned(home, signer) if signer else []
    files = {resource.name: directory / resource.name for resource in statement.subject}
    found += _unstated(statement)
    files |= {
        resource.name: home / resource.name
        for resource in statement.resources()
        if resource.name.startswith(BILLS)
    }
    inside = {name: path for name, path in files.items() if _lies_in(path, directory)}
    found += [f"{name} leads out of the package" for name in sorted(files.keys() - inside.keys())]
    found += damage(statement, inside)
    stated = {path.relative_to(directory).as_posix() for path in inside.values()}
    known = {*stated, f"{FOLDER}/{STATEMENT}", f"{FOLDER}/{ENVELOPE}"}
    found += [
        f"{name} is not in the statement"
        for name in sorted(strangers(directory, known, folders=True))
    ]
    return found, statement


def _unstated(statement: Statement) -> Iterator[str]:
    """Files that the statement names without a digest, or twice."""
    if not statement.subject:
        yield "the statement lists no file"
    seen: set[str] = set()
    for resource in statement.subject:
        if not resource.name.startswith(f"{TREE}/"):
            yield f"{resource.name} isn't a file of {TREE}/"
        if resource.name in seen:
            yield f"{resource.name} is in the statement twice"
        seen.add(resource.name)
    for resource in statement.resources():
        kind = (resource.annotations or {}).get("kind")
        if resource.sha256 is None and kind not in VALUES:
            yield f"{resource.name} has no sha256 in the statement"


def _lies_in(path: Path, directory: Path) -> bool:
    """Whether it is a file of the package itself: no links in its path, and nothing outside."""
    if ".." in path.parts or not path.is_relative_to(directory):
        return False
    below = path.relative_to(directory)
    return not any((directory / part).is_symlink() for part in (below, *below.parents[:-1]))


def disagreements(statement: Statement, inputs: Mapping[str, Path], own: Manifest) -> list[str]:
    """Where the statement differs from the manifests, whose files are checked elsewhere.

    `inputs` are the manifests that it was made from, `own` that of its own step.
    """
    said = {name: str(entry["sha256"]) for name, entry in own.files.items()}
    for role, path in inputs.items():
        if role.startswith(LOCK):
            said[f"{role}.lock"] = sha256_file(path)
            continue
        said[f"{role}/{MANIFEST}"] = sha256_file(path)
        below = "" if role == "package" else f"{role}/"
        files = Manifest.read(path).files
        said |= {f"{below}{name}": str(entry["sha256"]) for name, entry in files.items()}
    found = []
    for resource in statement.resources():
        if (resource.annotations or {}).get("kind") in VALUES:
            continue
        if resource.name not in said:
            found.append(f"{resource.name} of the statement is missing")
        elif said[resource.name] != resource.sha256:
            found.append(f"{resource.name} differs from the statement")
    return found


def _unsigned(home: Path, signer: Path) -> list[str]:
    envelope = home / ENVELOPE
    if not envelope.is_file() or envelope.is_symlink():
        return [f"{FOLDER}/{ENVELOPE} is missing: the package is not signed"]
    try:
        payload = opened(envelope.read_text(encoding="utf-8", errors="replace"), signer, ENVELOPE)
    except UserError as error:
        return [str(error)]
    if payload != (home / STATEMENT).read_bytes():
        return [f"{FOLDER}/{STATEMENT} is not what was signed"]
    return []

"""A package as it is handed over: `submission/`, `provenance/`, nothing else; checked offline."""

from collections.abc import Mapping
from pathlib import Path

from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, sha256_file
from steps.base.strict import Strict
from steps.submit.provenance.signing import opened
from steps.submit.provenance.statement import Statement, damage, read

FOLDER = "provenance"
STATEMENT = "provenance.json"
ENVELOPE = "provenance.dsse.json"
TREE = "submission"
LOCK = "lock/"
"""What the roles of an environment's lock start with."""

VALUES = ("configuration", "code", "host")
"""Kinds that are no files of their own."""


class Checked(Strict):
    """What `verify DIRECTORY --json` prints; `signed`: the signature was checked and holds."""

    directory: str
    files: int
    complaints: tuple[str, ...]
    signed: bool


def verify(directory: Path, signer: Path | None, *, as_json: bool = False) -> int:
    """Print what doesn't hold and a total; 0 if all holds, else 1. `signer`: a public key."""
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
        print(complaint)
    if complaints:
        print(f"{directory} does not hold: {len(complaints)} complaints")
        return 1
    said = f"signed by the key in {signer}" if signer else "signature not checked (--signer KEY)"
    print(f"{directory}: {len(statement.subject)} files hold; {said}")
    return 0


def complaints_of(directory: Path, signer: Path | None) -> tuple[list[str], Statement]:
    """What is wrong with the package, one phrase each; UserError if it can't be judged at all."""
    home = directory / FOLDER
    statement = read(home / STATEMENT)
    found = _unsigned(home, signer) if signer else []
    files = {resource.name: directory / resource.name for resource in statement.subject}
    bills = {f"sbom/{path.name}" for path in (home / "sbom").glob("*")}
    listed = {r.name for r in statement.resources() if r.name.startswith("sbom/")}
    files |= {name: home / name for name in listed}
    found += damage(statement, files)
    present = {
        path.relative_to(directory).as_posix()
        for path in (directory / TREE).rglob("*")
        if path.is_file()
    }
    found += [f"{name} is not in the statement" for name in sorted(present - files.keys())]
    found += [f"{name} is not in the statement" for name in sorted(bills - listed)]
    return found, statement


def disagreements(statement: Statement, inputs: Mapping[str, Path], own: Manifest) -> list[str]:
    """Where the statement says otherwise than the manifests, whose files are checked elsewhere.

    `inputs` are those that it was made from, `own` is the manifest of its own step.
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
            found.append(f"{resource.name} is not what the statement says")
    return found


def _unsigned(home: Path, signer: Path) -> list[str]:
    envelope = home / ENVELOPE
    if not envelope.is_file():
        return [f"{FOLDER}/{ENVELOPE} is missing: the package is not signed"]
    try:
        payload = opened(envelope.read_text(encoding="utf-8", errors="replace"), signer, ENVELOPE)
    except UserError as error:
        return [str(error)]
    if payload != (home / STATEMENT).read_bytes():
        return [f"{FOLDER}/{STATEMENT} is not what was signed"]
    return []

"""Write the statement of a submission and the bills of materials of its environments."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.confidential.finder import Finder
from steps.base.confidential.known import add_evidence, of_machine
from steps.base.confidential.placeholders import KINDS
from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import MANIFEST, Manifest, Record, Workspace, canonical_json, sha256_file
from steps.base.step import main
from steps.base.version import VERSION
from steps.config.submission import ProvenanceConfig, ProvenanceResult
from steps.submit.provenance.package import LOCK, STATEMENT, TREE
from steps.submit.provenance.sbom import bill
from steps.submit.provenance.statement import (
    BUILD_TYPE,
    BuildDefinition,
    Builder,
    Metadata,
    Predicate,
    Resource,
    RunDetails,
    Statement,
)

PACKAGE = "package"
KIND = {"dataset": "dataset", "environment": "environment", "container": "image"}
"""The kind of a step's files; those of runs and verdicts are logs, other artifacts' are weights."""


@dataclass(frozen=True)
class Source:
    """One result that the submission is made from; `host` is its number among all hosts."""

    role: str
    manifest: Manifest
    record: Record
    host: str


def step(
    config: ProvenanceConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes provenance.json and sbom/<environment>.cdx.json; neither names the site."""
    sources = list(_sources(inputs))
    bills = workspace.directory / "sbom"
    bills.mkdir()
    made = datetime.fromisoformat(min(source.record.started for source in sources))
    locks = {role: path for role, path in sorted(inputs.items()) if role.startswith(LOCK)}
    for path in locks.values():
        (bills / f"{path.stem}.cdx.json").write_text(bill(path, made), encoding="utf-8")
    known = of_machine(ROOT)
    add_evidence(known, inputs.values(), config.overrides)
    finder = Finder(known)
    statement = _statement(config, inputs[PACKAGE], sources, locks, bills, finder)
    text = statement.to_json()
    if found := finder.redacted(text)[1]:
        raise UserError(
            f"the statement would hold {KINDS[next(iter(found))]}; change the name of the system "
            "or setting that it comes from, in conf/ or the --site file"
        )
    (workspace.directory / STATEMENT).write_text(text, encoding="utf-8")
    kinds = [(r.annotations or {}).get("kind", "subject") for r in statement.resources()]
    counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    workspace.result = ProvenanceResult.model_validate(counts).dumped()


def _sources(inputs: Mapping[str, Path]) -> Iterator[Source]:
    """Hosts are numbered in the order in which their first result began."""
    found = []
    for role, path in inputs.items():
        if role in (PACKAGE, "environment") or role.startswith(LOCK):
            continue
        found.append((role, Manifest.read(path), Record.read(path)))
    began: dict[str, str] = {}
    for _, _, record in sorted(found, key=lambda entry: entry[2].started):
        began.setdefault(record.host, f"host/{len(began) + 1}")
    for role, manifest, record in found:
        yield Source(role, manifest, record, began[record.host])


def _statement(
    config: ProvenanceConfig,
    package: Path,
    sources: list[Source],
    locks: Mapping[str, Path],
    bills: Path,
    finder: Finder,
) -> Statement:
    files = Manifest.read(package).files
    dependencies = [
        *(_resource(f"{role}.lock", "environment", sha256_file(p)) for role, p in locks.items()),
        *(resource for source in sources for resource in _dependencies(source)),
        *_hosts(sources),
    ]
    byproducts = [
        *(resource for source in sources for resource in _byproducts(source)),
        *(_resource(f"sbom/{p.name}", "sbom", sha256_file(p)) for p in sorted(bills.iterdir())),
    ]
    overrides = [finder.redacted(text)[0] for text in config.overrides]
    return Statement(
        _type="https://in-toto.io/Statement/v1",
        subject=tuple(
            Resource(name=name, digest={"sha256": entry["sha256"]})
            for name, entry in sorted(files.items())
            if name.startswith(f"{TREE}/")
        ),
        predicateType="https://slsa.dev/provenance/v1",
        predicate=Predicate(
            buildDefinition=BuildDefinition(
                buildType=BUILD_TYPE,
                externalParameters={
                    "experiment": config.experiment,
                    "round": config.round,
                    "submitter": config.submitter,
                    "overrides": overrides,
                },
                resolvedDependencies=tuple(dependencies),
            ),
            runDetails=RunDetails(
                builder=Builder(id="urn:reprise", version={"reprise": VERSION}),
                metadata=Metadata(
                    invocationId=f"sha256:{sha256_file(package)}",
                    startedOn=min(source.record.started for source in sources),
                    finishedOn=max(source.record.finished for source in sources),
                ),
                byproducts=tuple(byproducts),
            ),
        ),
    )


def _dependencies(source: Source) -> Iterator[Resource]:
    """Files of artifacts, and each result's configuration and code."""
    manifest = source.manifest
    if not _ran(manifest):
        yield from _files(source, KIND.get(manifest.step, "weights"))
    config = hashlib.sha256(canonical_json(manifest.config).encode()).hexdigest()
    yield _resource(f"{source.role}/configuration", "configuration", config)
    yield _code(source)


def _code(source: Source) -> Resource:
    """The digest of a result's code, and the commit it is of; earlier versions didn't say."""
    resource = _resource(f"{source.role}/code", "code", source.record.code)
    version = source.record.origin.version
    if version is None:
        return resource
    told = {"version": version.number, "commit": version.commit, "changed": version.changed}
    said = {name: str(value).lower() for name, value in told.items() if value is not None}
    return resource.model_copy(update={"annotations": {**(resource.annotations or {}), **said}})


def _byproducts(source: Source) -> Iterator[Resource]:
    if _ran(source.manifest):
        yield from _files(source, "log")
    path = source.manifest.directory / MANIFEST
    yield _resource(f"{source.role}/{MANIFEST}", "manifest", sha256_file(path), source.host)


def _ran(manifest: Manifest) -> bool:
    return manifest.step.endswith(("_run", "_check", "describe"))


def _files(source: Source, kind: str) -> Iterator[Resource]:
    for name, entry in sorted(source.manifest.files.items()):
        yield _resource(f"{source.role}/{name}", kind, entry["sha256"], source.host)


def _hosts(sources: list[Source]) -> Iterator[Resource]:
    """A host's digest is that of its description: a digest of its name could be guessed."""
    described = {
        source.host: source.manifest.files["system.json"]["sha256"]
        for source in sources
        if source.manifest.step == "describe"
    }
    for host in sorted({source.host for source in sources}, key=lambda name: int(name[5:])):
        yield _resource(host, "host", described.get(host))


def _resource(name: str, kind: str, sha256: Any, host: str | None = None) -> Resource:
    annotations = {"kind": kind} | ({"host": host} if host else {})
    digest = {"sha256": str(sha256)} if sha256 else None
    return Resource(name=name, digest=digest, annotations=annotations)


if __name__ == "__main__":
    main("provenance", ProvenanceConfig, step)

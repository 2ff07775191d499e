"""Assemble the submission tree: nothing is measured here, only checked, copied and explained."""

import os
from collections.abc import Mapping
from pathlib import Path

from steps import ROOT
from steps.base.confidential.finder import Finder
from steps.base.confidential.known import add_evidence, of_machine
from steps.base.console import Console
from steps.base.record import Workspace, write_atomically
from steps.base.step import main
from steps.config.submission import SubmissionConfig, SubmissionResult
from steps.mlperf.rounds import load
from steps.submit.confidential import is_clean, redact, redactions, require_clean
from steps.submit.submission import parts, texts
from steps.submit.submission.parts import OUTCOME, Former, Part
from steps.submit.submission.tree import TREE, add_division, add_result, folders, place_of
from steps.submit.submission.verdicts import Evidence, gather, require_unchanged
from steps.submit.validate.findings import Severity
from steps.submit.validate.render import as_json, as_object
from steps.submit.validate.result import Outcome
from steps.submit.validate.submission import Report, validate
from steps.submit.validate.tree import Place

NOT_FOR_SUBMISSION = "NOT-FOR-SUBMISSION.md"
FINDINGS = "validation.json"


def step(
    config: SubmissionConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """Writes submission/ (the tree), audit/ (untruncated accuracy logs) and validation.json.

    Documents don't name the site; UserError if anything else of the tree does.
    """
    package, layout = workspace.directory, load(config.round).layout
    former = Former.read(workspace.previous, workspace.code)
    finder = _finder(config, inputs)
    evidence = [gather(cell, inputs) for cell in config.cells]
    lent: dict[str, Part] = {}
    made: dict[str, tuple[Evidence, Place]] = {}
    for found in evidence:
        for packaged in found.cell.packages:
            place = place_of(found.cell, packaged.name, config, layout)
            digest = _digest(found, config)
            if part := former.lend(
                place.results, digest, package, lambda path: is_clean(path, finder)
            ):
                lent[place.results] = part
                continue
            require_unchanged(found)
            add_result(found, place, package, config)
            made[place.results] = (found, place)
    divisions = sorted({cell.division for cell in config.cells})
    for division in divisions:
        within = [found for found in evidence if found.cell.division == division]
        home = package / TREE / division / config.submitter
        add_division(within, inputs, home, config, layout)
    departures = sorted({d for cell in config.cells for d in cell.departures})
    if departures:
        notice = package / TREE / NOT_FOR_SUBMISSION
        write_atomically(notice, texts.not_for_submission(config))
    redact(package / TREE, finder)
    require_clean(package / TREE, finder)
    report, outcomes = _checked(package, config.round, lent)
    write_atomically(package / FINDINGS, as_json(as_object(report)) + "\n")
    new = {
        name: Part(
            digest=_digest(found, config),
            files=parts.digests(package, folders(place)),
            outcome=parts.outcome_text(outcomes[name]),
        )
        for name, (found, place) in made.items()
    }
    parts.write(package, workspace.code, lent | new)
    errors = report.count(Severity.ERROR)
    print(f"{len(new)} results written and checked, {len(lent)} kept; {errors} errors of validate")
    workspace.result = SubmissionResult(
        divisions=tuple(divisions),
        submitter=config.submitter,
        departures=tuple(departures),
        errors=errors,
        redactions=tuple(redactions(package / TREE)),
        may_be_submitted=not departures and not errors,
        files=sum(1 for path in (package / TREE).rglob("*") if path.is_file()),
    ).dumped()


def _finder(config: SubmissionConfig, inputs: Mapping[str, Path]) -> Finder:
    """What identifies this site: the machine, the hosts that ran, configurations and overrides."""
    known = of_machine(ROOT)
    add_evidence(known, inputs.values(), config.overrides)
    return Finder(known)


def _digest(found: Evidence, config: SubmissionConfig) -> str:
    """The digest of a result's inputs: its evidence, and the command in its README."""
    return texts.digest_of(found.digest, config)


def _checked(
    package: Path, round_name: str, lent: Mapping[str, Part]
) -> tuple[Report, dict[str, Outcome]]:
    """The validator's report on the tree; reused results aren't checked again."""
    known = {name: OUTCOME.validate_json(part.outcome) for name, part in lent.items()}
    looked_at: dict[str, Outcome] = {}
    report = validate(
        package / TREE,
        round_name,
        processes=1,
        known=known,
        keep=lambda outcome: looked_at.update({outcome.evidence.path: outcome}),
    )
    # Where the tree lies while it is made is of no interest once it is in place.
    report.root = TREE
    return report, looked_at


def _link(package: Path) -> None:
    """The tree's root may contain nothing else: its manifest is beside it, with a link to it."""
    link = package.with_name(TREE)
    temporary = link.with_name(f".{TREE}.{os.getpid()}")
    temporary.symlink_to(Path(package.name) / TREE)
    os.replace(temporary, link)


if __name__ == "__main__":
    main("submission", SubmissionConfig, step, _link)

"""All commands of `./reproduce`: what each does, an example, and the module that does it.

A command's module has `declare(parser)`, which adds its arguments, and `command(given)`, which
takes what was read and returns the exit status. It is imported only for that command.
"""

from collections.abc import Mapping
from dataclasses import dataclass

RUN = "run"
"""What a command line without a command does."""


@dataclass(frozen=True)
class Command:
    """`about`: one line; `example`: its arguments in a command line that can be typed."""

    module: str
    about: str
    example: str = ""


ON_A_PLAN: Mapping[str, Command] = {
    RUN: Command(
        "steps.commands.planned",
        "(default) make the plan and run what of it is missing or out of date",
        "experiment=rehearsal scenario=Server -- --dry-run",
    ),
    "again": Command(
        "steps.commands.planned",
        "measure again what failed, or the cells and results that are named",
        "Server performance experiment=rehearsal",
    ),
    "status": Command(
        "steps.commands.planned",
        "a table of the plan's cells: valid, running, missing, failed and why",
        "experiment=rehearsal",
    ),
    "report": Command(
        "steps.commands.planned",
        "make the page of what there is, or with --published of AMD's published submission",
        "experiment=rehearsal",
    ),
    "plan": Command(
        "steps.commands.preview",
        "print what would run, why, how long it takes and how much disk it needs",
        "experiment=rehearsal-full",
    ),
    "manifests": Command(
        "steps.commands.planned",
        "print what Kubernetes would be given, with scheduler=kubernetes",
        "experiment=rehearsal scheduler=kubernetes",
    ),
    "verify": Command(
        "steps.commands.verify",
        "check every result of the plan, or a directory that unseal wrote, against its digests",
        "experiment=rehearsal",
    ),
}
"""Those that take overrides and work on the plan that these choose."""

OTHERS: Mapping[str, Command] = {
    "ls": Command("steps.commands.ls", "list experiments and the values of every group"),
    "describe": Command(
        "steps.commands.describe",
        "write the system description of this machine, or of a cluster",
        "--node node-1.json",
    ),
    "doctor": Command(
        "steps.commands.doctor",
        "say what keeps a plan from running on this machine, and what to type",
        "experiment=rehearsal",
    ),
    "capacity": Command(
        "steps.plan.capacity",
        "say how many accelerators hold which model at which precision",
        "llama2-70b 405",
    ),
    "validate": Command(
        "steps.submit.validate.command",
        "check a submission tree by the rules of its round",
        "results/rehearsal/package/submission --round v5.1",
    ),
    "explain": Command(
        "steps.submit.validate.explain",
        "say what a finding of validate means, and its fix",
        "tree-empty",
    ),
    "migrate": Command(
        "steps.submit.migrate.command",
        "write a submission tree in another round's layout",
        "submission --round v6.0 --output submission-v6.0",
    ),
    "score": Command(
        "steps.judge.scoring.command",
        "write accuracy.txt from a full accuracy log, without a network",
        "llama2-70b --log logs/mlperf_log_accuracy.json --dataset open_orca.pkl "
        "--tokenizer tokenizer.json --output accuracy.txt",
    ),
    "compliance": Command(
        "steps.judge.compliance.command",
        "verify TEST01, TEST04, TEST06, TEST07 or TEST09 and package it",
        "TEST06 --benchmark llama2-70b-99 --run logs --output compliance",
    ),
    "import-round": Command(
        "steps.commands.import_round",
        "make the tables of a published round, and drafts of its systems, from its results",
        "inference_results_v6.0 --round v6.0",
    ),
    "compare": Command(
        "steps.commands.compare",
        "compare two results, your own or published, in numbers and configuration",
        "results/rehearsal 5.1-0002",
    ),
    "diff": Command(
        "steps.commands.diff",
        "show what a system sets differently from its base",
        "system=dell-mi300x base=amd-mi300x",
    ),
    "tune": Command(
        "steps.commands.tune.command",
        "find the highest target_qps of Server and Interactive on this machine",
        "scenario=Server --budget 45m",
    ),
    "collect": Command(
        "steps.commands.collect",
        "bring results of other machines here, checked by their digests, and make the tree of all",
        "../from-mi325x experiment=amd-v5.1",
    ),
    "seal": Command(
        "steps.commands.seal",
        "make one file of a finished submission, signed and encrypted",
        "experiment=rehearsal --output rehearsal.sealed --sign key.pem",
    ),
    "unseal": Command(
        "steps.commands.unseal",
        "open what seal made, and check it",
        "rehearsal.sealed received",
    ),
    "bundle": Command(
        "steps.commands.bundle.command",
        "make one archive from which a machine without a network is set up",
        "experiment=rehearsal --output rehearsal.tar",
    ),
    "unbundle": Command(
        "steps.commands.bundle.unbundle",
        "set up a machine from a bundle",
        "rehearsal.tar reprise",
    ),
    "completion": Command(
        "steps.commands.completion",
        "print what makes bash or zsh complete these commands",
        "bash > ~/.local/share/bash-completion/completions/reproduce",
    ),
}
"""Those that work on no plan, or choose one by themselves."""

COMMANDS: Mapping[str, Command] = {**ON_A_PLAN, **OTHERS}

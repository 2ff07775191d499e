"""RULER's `niah_multivalue` sets to fine-tune on: made by its published generator, or taken from a
directory of this machine. The generator's code runs as it was published, at one commit.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from steps.base.console import Console
from steps.base.errors import UserError
from steps.base.record import Manifest, Workspace, partial_directory, sha256_file
from steps.base.step import main
from steps.base.untrusted import json_of
from steps.config.compression import TrainingSetsConfig, TrainingSetsResult

DATA = Path("scripts/data")
SYNTHETIC = DATA / "synthetic"
ESSAYS = SYNTHETIC / "json/PaulGrahamEssays.json"
DOWNLOAD = "download_paulgraham_essay.py"
"""Places in the generator's repository."""

GIT_LIMIT_S = 600.0
DOWNLOAD_LIMIT_S = 3600.0

ASKED = """
import json, runpy, sys
task = runpy.run_path(sys.argv[1])["TASKS"]["niah"]
template = runpy.run_path(sys.argv[2])["Templates"][sys.argv[3]]
whole = template.format(task_template=task["template"]) + task.get("answer_prefix", "")
print(json.dumps({"template": whole, "tokens": task["tokens_to_generate"]}))
"""
"""Puts a prompt's template together as the generator's prepare.py does, which passes it on through
a shell and goes on after an error."""


def step(
    config: TrainingSetsConfig, inputs: Mapping[str, Path], workspace: Workspace, console: Console
) -> None:
    """A killed step goes on with the sets that it had finished. UserError for a file whose digest
    differs or isn't given, and for a set that isn't what it should be."""
    if config.directory is not None:
        _take(config, Path(config.directory).expanduser(), workspace.directory)
        made = TrainingSetsResult(made="elsewhere")
    else:
        model = Manifest.read(inputs["model"]).directory
        partial = workspace.partial or partial_directory(workspace.directory)
        essays = _generate(config, model, partial, workspace.directory, console)
        made = TrainingSetsResult(made="here", commit=config.commit, haystack_sha256=essays)
    for name, (length, needles) in config.names.items():
        _check(workspace.directory / name, config, length, needles)
    workspace.result = made.dumped()


# ---- taken -------------------------------------------------------------------------------------


def _take(config: TrainingSetsConfig, home: Path, directory: Path) -> None:
    unknown = {}
    for name in config.names:
        path = home / name
        if not path.is_file():
            raise UserError(
                f"{path} is missing; compression.training_sets.directory has a file for each of "
                f"{', '.join(config.names)}"
            )
        digest = sha256_file(path)
        if name not in config.digests:
            unknown[name] = digest
        elif digest != config.digests[name]:
            raise UserError(
                f"{path} isn't the file whose digest is given: its sha256 is {digest}, not "
                f"{config.digests[name]}; restore it, or correct compression.training_sets.digests"
            )
        shutil.copyfile(path, directory / name)
    if unknown:
        given = ", ".join(f"{name}: {digest}" for name, digest in unknown.items())
        raise UserError(
            "compression.training_sets.digests has no sha256 of "
            f"{next(iter(unknown))}; if the files of {home} are right, set {{{given}}}"
        )


# ---- generated ---------------------------------------------------------------------------------


def _generate(
    config: TrainingSetsConfig, model: Path, partial: Path, directory: Path, console: Console
) -> str:
    """The sha256 of the text that needles are hidden in."""
    partial.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment["NLTK_DATA"] = str(_tokenizers(config, partial))
    home = _checked_out(config, partial / "generator")
    essays = _haystack(config, home)
    asked = json.loads(
        _run(
            [sys.executable, "-c", ASKED, SYNTHETIC / "constants.py", DATA / "template.py",
             config.template],
            home, 60.0, environment, f"the template {config.template} of RULER",
        )
    )  # fmt: skip
    # Of one recipe: what another one left isn't gone on from.
    recipe = hashlib.sha256(f"{config.model_dump_json()}{essays}".encode()).hexdigest()[:12]
    held = partial / f"sets-{recipe}"
    held.mkdir(exist_ok=True)
    progress = console.progress("training sets", len(config.names), "sets")

    def generate(name: str) -> None:
        _set(name, config, model, home, held, asked, environment)

    with ThreadPoolExecutor(config.processes) as pool:
        for _ in pool.map(generate, config.names):
            progress.add(1)
    progress.close()
    for name in config.names:
        shutil.copyfile(held / name, directory / name)
    return essays


def _checked_out(config: TrainingSetsConfig, home: Path) -> Path:
    """The repository at the commit, which git checks by its content."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1"}
    if config.offline and "://" in config.generator and not config.generator.startswith("file://"):
        raise UserError(
            f"offline=true, and {config.generator} comes from a network; set "
            "compression.training_sets.generator to a clone, or directory to the sets"
        )
    local = "://" not in config.generator
    source = str(Path(config.generator).expanduser().resolve()) if local else config.generator
    for command in (
        ["git", "init", "--quiet"],
        ["git", "fetch", "--quiet", "--depth", "1", "--", source, config.commit],
        ["git", "checkout", "--quiet", "FETCH_HEAD"],
    ):
        what = f"{config.generator} at {config.commit}"
        _run(command, home, GIT_LIMIT_S, environment, what)
    found = _run(["git", "rev-parse", "HEAD"], home, 60.0, environment, "the commit").strip()
    if found != config.commit or not (home / SYNTHETIC / "niah.py").is_file():
        raise UserError(
            f"{config.generator} at {found} isn't RULER; correct compression.training_sets.commit"
        )
    return home


def _haystack(config: TrainingSetsConfig, home: Path) -> str:
    """Puts the text where the generator looks for it; returns its sha256."""
    wanted, place = config.haystack, home / ESSAYS
    place.parent.mkdir(parents=True, exist_ok=True)
    if wanted.path is not None:
        path = Path(wanted.path).expanduser()
        if not path.is_file():
            raise UserError(f"{path} isn't a file; correct compression.training_sets.haystack.path")
        shutil.copyfile(path, place)
    elif config.offline:
        raise UserError(
            "offline=true, and RULER downloads the text that needles are hidden in; set "
            "compression.training_sets.haystack.path to its PaulGrahamEssays.json"
        )
    else:
        command = [sys.executable, DOWNLOAD]
        _run(command, place.parent, DOWNLOAD_LIMIT_S, dict(os.environ), "RULER's essays")
    try:
        if not str(json.loads(place.read_text(encoding="utf-8"))["text"]).strip():
            raise ValueError("it has no text")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{place.name} isn't RULER's haystack ({error}); make it again") from error
    digest = sha256_file(place)
    if wanted.sha256 not in (None, digest):
        raise UserError(
            f"the haystack's sha256 is {digest}, not {wanted.sha256}; restore it, or correct "
            "compression.training_sets.haystack.sha256"
        )
    return digest


def _tokenizers(config: TrainingSetsConfig, partial: Path) -> Path:
    """Where NLTK finds the sentences of a text."""
    if config.nltk_data is not None:
        home = Path(config.nltk_data).expanduser()
    elif config.offline:
        raise UserError(
            "offline=true, and RULER finds sentences by NLTK's data; set "
            "compression.training_sets.nltk_data to a directory with tokenizers/punkt_tab"
        )
    else:
        home = partial / "nltk_data"
        code = f"import nltk; nltk.download('punkt_tab', download_dir={str(home)!r}, quiet=True)"
        _run([sys.executable, "-c", code], partial, GIT_LIMIT_S, dict(os.environ), "NLTK's data")
    if not (home / "tokenizers/punkt_tab").is_dir():
        raise UserError(
            f"{home} has no tokenizers/punkt_tab of NLTK; set compression.training_sets.nltk_data "
            "to a directory that has it"
        )
    return home


def _set(
    name: str,
    config: TrainingSetsConfig,
    model: Path,
    home: Path,
    held: Path,
    asked: Mapping[str, Any],
    environment: Mapping[str, str],
) -> None:
    """One set, under its name when it is complete."""
    if (held / name).is_file():
        return
    length, needles = config.names[name]
    stem = name.removesuffix(".jsonl")
    command = [
        *(sys.executable, "niah.py", "--save_dir", held, "--save_name", stem),
        *("--subset", "made", "--tokenizer_path", model, "--tokenizer_type", "hf"),
        *("--max_seq_length", length, "--tokens_to_generate", asked["tokens"]),
        *("--num_samples", config.samples, "--random_seed", config.seed),
        *("--template", asked["template"], "--type_haystack", "essay"),
        *("--type_needle_k", "words", "--type_needle_v", config.values),
        *("--num_needle_k", 1, "--num_needle_v", needles, "--num_needle_q", 1),
    ]
    _run(command, home / SYNTHETIC, config.limit_s, environment, f"RULER's generator for {stem}")
    os.replace(held / stem / "made.jsonl", held / name)


def _run(
    command: list[Any], folder: Path, limit_s: float, environment: Mapping[str, str], what: str
) -> str:
    """What a command prints; raises UserError with its last line if it fails or takes too long."""
    try:
        done = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=dict(environment),
            capture_output=True,
            text=True,
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} isn't installed, which fetching RULER needs") from error
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{what} took more than {limit_s:g} s; raise limit_s") from error
    if done.returncode:
        print(done.stderr)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{what} can't be had: {last:.300}")
    return done.stdout


# ---- checked -----------------------------------------------------------------------------------


def _check(path: Path, config: TrainingSetsConfig, length: int, needles: int) -> None:
    """Raises UserError for a set with another number of samples, needles or tokens."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} isn't UTF-8; generate it again") from error
    if len(lines) != config.samples:
        raise UserError(
            f"{path.name} has {len(lines)} samples, and {config.samples} are wanted of each set; "
            "generate it with as many"
        )
    for number, line in enumerate(lines, start=1):
        try:
            fields = json_of(line)
            text, answers, tokens = fields["input"], fields["outputs"], int(fields["length"])
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"line {number} of {path.name} isn't a RULER sample with input, outputs and "
                "length; generate the set again"
            ) from error
        hidden = isinstance(answers, list) and all(str(one) in text for one in answers)
        if not hidden or len(answers) != needles or tokens > length:
            raise UserError(
                f"line {number} of {path.name} isn't of {needles} needles in at most {length:,} "
                "tokens; generate the set again"
            )


if __name__ == "__main__":
    main("training_sets", TrainingSetsConfig, step)

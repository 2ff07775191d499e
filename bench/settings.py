"""`python -m bench.settings --published DIR`: is the golden table AMD's published settings?

Reads the YAML files of AMD's harness for language models from a checkout, or a repository, of
mlcommons/inference_results_v5.1 at its published commit, and compares them with
tests/golden/amd-v5.1-settings.csv, one setting at a time. Ends with status 1 if one differs, is
missing there, or isn't published.
"""

import argparse
import csv
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from steps import ROOT
from steps.base.yaml_text import mapping_in

GOLDEN = ROOT / "tests/golden/amd-v5.1-settings.csv"
COMMIT = "965182b03376a00fcae415c54e560e1c83937932"
LIMIT_S = 60

GROUPS = {
    "env_config": "env",
    "vllm_env_config": "env",
    "vllm_engine_config": "engine",
    "vllm_sampling_config": "sampling",
    "harness_config": "harness",
    "sglang_engine_config": "sgl",
    "sglang_sampling_config": "sgl_samp",
}
"""Sections of AMD's files, and what they are called in the table; settings of others, with their
section's own name, are settings that nobody has looked at."""

LLAMA2 = "closed/AMD/code/llama2-70b-99.9/harness_llm/models/llama2-70b"
MIXTRAL = "closed/AMD/code/mixtral-8x7b/harness_llm/models/mixtral-8x7b"
LLAMA3 = "open/AMD/code/llama3_1-405b_{}/harness_llm/models/llama3-405b/offline_mi355x.yaml"
FILES: Mapping[tuple[str, str], str] = {
    **{
        ("llama2-70b", f"{scenario}_{kind}"): f"{LLAMA2}/{scenario}_{kind}.yaml"
        for scenario, kinds in {
            "offline": ("mi300x", "mi325x", "mi355x"),
            "server": ("mi300x", "mi325x", "mi355x"),
            "interactive": ("mi300x", "mi325x"),
        }.items()
        for kind in kinds
    },
    **{
        ("mixtral-8x7b", f"{scenario}_{kind}"): f"{MIXTRAL}/{scenario}_{kind}.yaml"
        for scenario in ("offline", "server")
        for kind in ("mi300x", "mi325x")
    },
    **{("llama3.1-405b", name): LLAMA3.format(name) for name in ("pruned", "finetuned")},
}
"""By benchmark and name in the table. llama2-70b-99 and the open division have the same files."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--published", type=Path, required=True, help="checkout or repository")
    options = parser.parse_args()
    known = tabled(GOLDEN.read_text(encoding="utf-8"))
    found = {}
    for (benchmark, name), path in FILES.items():
        for setting, value in settings(shown(options.published, path)).items():
            found[benchmark, name, setting] = value
    wrong = list(differences(found, known))
    print("\n".join(wrong) or f"{len(found)} settings, each as published")
    sys.exit(bool(wrong))


def shown(repository: Path, path: str) -> str:
    command = ["git", "-C", str(repository), "show", f"{COMMIT}:{path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
        sys.exit(f"{repository} has no {path} at commit {COMMIT}: {said}; name a clone that has it")
    return done.stdout


Settings = Mapping[tuple[str, str, str], str]
"""By benchmark, file and setting."""


def tabled(text: str) -> Settings:
    columns = ("benchmark", "file", "setting")
    rows = csv.DictReader(text.splitlines())
    return {(row[columns[0]], row[columns[1]], row[columns[2]]): row["value"] for row in rows}


def settings(text: str) -> dict[str, str]:
    """Every setting of one file, as the table names it."""
    return {name: _plain(value) for name, value in _leaves(mapping_in(text, "YAML"), "")}


def _leaves(node: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        name = f"{above}.{key}" if above else GROUPS.get(key, key)
        if isinstance(value, Mapping):
            yield from _leaves(value, name)
        else:
            yield name, value


def _plain(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def differences(published: Settings, table: Settings) -> Iterator[str]:
    for key in sorted(published.keys() | table.keys()):
        if published.get(key) != table.get(key):
            said = f"published {published.get(key)!r}, in the table {table.get(key)!r}"
            yield f"{' '.join(key)}: {said}"


if __name__ == "__main__":
    main()

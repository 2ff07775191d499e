"""What the gate of Mixtral in miniature takes, by the official scorer: true answers, and others."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from steps.config.checks import AccuracyCheckConfig, Gates
from steps.judge.accuracy_check import judged
from steps.judge.scoring.sandbox import Sandbox
from steps.judge.scoring.score import score
from steps.plan.plan import freeze
from steps.plan.unsupported import refusal, unseen
from steps.prepare.rehearsal.mixed import dataset, tasks
from steps.prepare.rehearsal.mixed.tasks import VOCABULARY, Task
from steps.prepare.rehearsal.tokenizer import END
from tests.conftest import planned
from tests.judge.test_sandbox import bubblewrap, walls

__all__ = ["bubblewrap", "walls"]

SAMPLES = 48
TOKENIZER = Path(tasks.__file__).parent / "model/tokenizer.json"
Engine = Callable[[Task], list[int]]


def ideal(task: Task) -> list[int]:
    """Ends with the stop sequence, as the reference cuts an answer."""
    answer = VOCABULARY.encode(task.answer)
    return answer if task.after else [*answer, END]


def deaf(task: Task) -> list[int]:
    """Knows the end token alone."""
    return [*VOCABULARY.encode(f"{task.answer} {task.after}"), END]


def hasty(task: Task) -> list[int]:
    """Stops at the first token of the sequence."""
    answer, first = ideal(task), task.stop_ids[0]
    return answer[: answer.index(first) + 1]


def careless(task: Task) -> list[int]:
    """Takes every number of two digits for another one."""
    misread = {VOCABULARY.ids[str(number)]: VOCABULARY.ids["67"] for number in range(21, 67)}
    return [misread.get(token, token) for token in ideal(task)]


def scores(home: Path, engine: Engine) -> dict[str, float]:
    given = [engine(task) for task in islice(tasks.tasks("evaluation", dataset.SEED), SAMPLES)]
    lines = [
        f'{{ "seq_id" : {index}, "qsl_idx" : {index}, "data" : "{_hexadecimal(ids)}" }}'
        for index, ids in enumerate(given)
    ]
    log = home / "log"
    log.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    found = score("mixtral-8x7b", log, dataset.evaluation(SAMPLES), TOKENIZER).result()
    return {name: float(value) for name, value in found.items()}


def _hexadecimal(ids: list[int]) -> str:
    return b"".join(token.to_bytes(4, "little") for token in ids).hex().upper()


@pytest.fixture(scope="module")
def gate(walls: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Gates:
    """The benchmark's, with the true answers' own scores as those of the reference: of a few
    prompts the mean length isn't that of all."""
    plan = planned("experiment=rehearsal-mixtral", "precision=bf16", "scenario=Offline")
    (job,) = (job for job in plan.jobs if job.step == "accuracy_check")
    config = AccuracyCheckConfig.model_validate_json(job.config)
    found = config.gates[config.required]
    assert isinstance(found, Gates)
    true = scores(tmp_path_factory.mktemp("true"), ideal)
    return found.model_copy(
        update={
            "reference": {name: true[name] for name in found.reference},
            "tokens_per_sample": true["tokens_per_sample"],
        }
    )


@pytest.mark.parametrize(
    ("engine", "missed"),
    [
        (ideal, set[str]()),
        (deaf, {"tokens_per_sample"}),
        (hasty, {"mbxp", "tokens_per_sample"}),
        (careless, {"rouge1", "rouge2", "rougeL", "gsm8k", "mbxp"}),
    ],
)
def test_a_wrong_stop_sequence_fails_the_gate(
    gate: Gates, tmp_path: Path, engine: Engine, missed: set[str]
) -> None:
    verdict = judged(scores(tmp_path, engine), gate)
    assert {name for name, metric in verdict.metrics.items() if not metric.passed} == missed
    assert verdict.passed is not bool(missed)


def test_what_a_machine_lacks_to_run_programs_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plan = planned("experiment=rehearsal-mixtral", "precision=bf16", "scenario=Offline")
    frozen = freeze(plan, tmp_path)
    (job,) = (job for job in plan.jobs if job.step == "accuracy_check")
    assert not any(" tsc" in name or "php" in name for name in job.programs)
    for absent, package in (("bwrap", "bubblewrap"), ("g++", "g++"), ("python3", "python3")):
        monkeypatch.setattr(
            "shutil.which", lambda name, path=None, absent=absent: None if name == absent else name
        )
        sentence = refusal(frozen, tmp_path, unseen)
        assert sentence is not None and "step accuracy_check: " in sentence
        assert f"(apt-get install {package})" in sentence

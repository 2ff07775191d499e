"""An engine's settings searched: on simulated engines, from a journal, and in a plan."""

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bench.simulated_engine import Behaviour, Kind, SimulatedProber
from steps.base.errors import UserError
from steps.commands.tune import main, settings
from steps.commands.tune.arrivals import Length
from steps.commands.tune.config import PATH, Space, load
from steps.commands.tune.request import REQUEST, Request, request_in
from steps.commands.tune.search import Search
from steps.commands.tune.settings import trials
from steps.commands.tune.settings_request import (
    Appraisal,
    SettingsRequest,
    Trial,
    best_of,
    configured,
    overrides_of,
    trials_in,
    with_values,
)
from steps.config.checks import PerformanceCheckConfig
from tests.commands.tune.test_search import LINEAR, SEED, SLOTS, limit_of, search_of
from tests.conftest import edit, planned

SEQS, TOKENS = "arguments.max_num_seqs", "arguments.max_num_batched_tokens"
SPACE = Space(
    values={SEQS: (8, 16, 32, 64, 128, 256), TOKENS: (256, 512, 1024, 2048)},
    rising=((SEQS, TOKENS),),
)
SEARCH = load().settings.model_copy(update={"trials": 10})
CONFIGURED = {SEQS: 16, TOKENS: 512}
BEST_SEQS = 64


def engine(values: Mapping[str, int]) -> Kind:
    """Places and requests started a step. Beyond `BEST_SEQS` running, steps get out of hand."""
    knee = Behaviour(0.02, 1e-4, slots=values[SEQS], knee=(BEST_SEQS, 2e-3))
    behaviour = replace(knee, per_prefill_s=0.004, prefills=values[TOKENS] // 256)
    return replace(LINEAR, behaviour=behaviour, name=str(values))


@cache
def true_limit(seqs: int, tokens: int) -> float:
    return limit_of(engine({SEQS: seqs, TOKENS: tokens}))


def appraise(values: Mapping[str, int], guess: float, beat: float) -> Appraisal:
    """As bench.tune searches a rate, exploring only."""
    return explored(engine(values), guess, beat)


def explored(kind: Kind, guess: float, beat: float) -> Appraisal:
    prober = SimulatedProber(kind, 1)
    search: Search = search_of(kind, guess)
    steps = search.appraise(beat)
    try:
        asked = next(steps)
        while True:
            asked = steps.send(prober.measure(asked))
    except StopIteration as stop:
        limit, deviation = stop.value.limit, stop.value.deviation
    probes = len(prober.probes)
    return Appraisal(
        limit=limit,
        deviation=deviation,
        why="",
        probes=probes,
        spent_s=prober.measured_s,
        home="",
    )


def test_the_best_settings_are_found() -> None:
    made = list(trials(SEARCH, SPACE, CONFIGURED, 20.0, appraise))
    assert made[0].values == CONFIGURED
    assert len({str(trial.values) for trial in made}) == len(made) == SEARCH.trials
    assert all(trial.values[SEQS] <= trial.values[TOKENS] for trial in made)
    best = best_of(made)
    highest = true_limit(BEST_SEQS, 1024)
    assert true_limit(best.values[SEQS], best.values[TOKENS]) > 0.97 * highest
    assert best.limit == pytest.approx(highest, rel=0.05)
    assert highest > 1.3 * true_limit(*CONFIGURED.values()), "there is something to find"
    worse = [
        trial
        for trial in made[1:]
        if trial.limit < 0.9 * max(t.limit for t in made[: trial.number])
    ]
    assert worse
    assert all(trial.probes == 1 for trial in worse), "one probe tells that it is no better"


def test_settings_that_one_probe_leaves_open_are_looked_at_again() -> None:
    """In a run as short as a probe the queue hardly grows, so an overloaded one proves little."""
    short = replace(SLOTS, length=Length(SEED, 512, 100, 5.0))
    limit = limit_of(short)
    assert explored(short, 1.01 * limit, 1.01 * limit).probes > 1
    assert explored(short, 1.3 * limit, 1.3 * limit).probes == 1, "worse for sure"


class Killed(Exception):
    """Stands for whatever ends the process."""


def trying(
    home: Path, monkeypatch: pytest.MonkeyPatch, kill_after: int | None = None
) -> list[Mapping[str, int]]:
    """The process that tries settings, on simulated engines; what it had to measure."""
    made: list[Mapping[str, int]] = []

    def measured(
        request: SettingsRequest, values: Mapping[str, int], guess: float, beat: float
    ) -> Appraisal:
        if len(made) == kill_after:
            raise Killed
        made.append(dict(values))
        return appraise(values, guess, beat)

    monkeypatch.setattr(settings, "appraised", measured)
    try:
        assert settings.main(str(home / REQUEST)) == 0
    except Killed:
        assert kill_after is not None
    return made


@pytest.fixture
def home(tmp_path: Path, jobs: dict[str, str]) -> Path:
    planned = with_values(jobs["performance_run"], CONFIGURED)
    base = Request(
        cell="a/b/none/bf16/Server",
        planned=planned,
        check=PerformanceCheckConfig.model_validate_json(jobs["performance_check"]),
        inputs={},
        launcher=(),
        code=(),
        guess=20.0,
        guessed_from="the test",
        budget_s=None,
        answers=None,
        home=str(tmp_path / "base"),
        settings=load().search,
    )
    request = SettingsRequest(
        base=base,
        context=({"model": "a"}, 1.5),
        below=str(tmp_path),
        space=SPACE,
        search=SEARCH.model_copy(update={"trials": 5}),
        budget_s=None,
    )
    (tmp_path / REQUEST).write_text(request.model_dump_json(), encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def jobs() -> dict[str, str]:
    return {job.step: job.config for job in planned("scenario=Server").jobs}


def test_trials_that_were_killed_go_on_without_repeating_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = trying(home, monkeypatch, kill_after=2)
    assert [trial.values for trial in trials_in(home)] == first
    rest = trying(home, monkeypatch)
    made = trials_in(home)
    assert [trial.values for trial in made] == first + rest
    assert len({str(trial.values) for trial in made}) == len(made) == 5
    assert trying(home, monkeypatch) == [], "all of them were made"
    assert trials_in(home) == made
    whole = trials(SEARCH.model_copy(update={"trials": 5}), SPACE, CONFIGURED, 20.0, appraise)
    assert [trial.values for trial in whole] == [trial.values for trial in made]


def test_a_budget_ends_the_trials_and_the_configured_one_is_made() -> None:
    for budget_s, most in ((1.0, 1), (400.0, 8)):
        made = list(trials(SEARCH, SPACE, CONFIGURED, 20.0, appraise, budget_s))
        assert made[0].values == CONFIGURED
        assert len(made) <= most
        assert sum(trial.spent_s for trial in made[1:]) <= budget_s


def test_settings_that_an_engine_doesnt_start_with_are_told_and_gone_by(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher of the request starts nothing, whatever the settings."""
    request = SettingsRequest.model_validate_json((home / REQUEST).read_text(encoding="utf-8"))
    base = request.base.model_copy(
        update={"launcher": (sys.executable, "-c", "raise SystemExit(3)")}
    )
    request = request.model_copy(update={"base": base})
    (home / REQUEST).write_text(request.model_dump_json(), encoding="utf-8")
    monkeypatch.setattr(settings, "ROOT", home)
    monkeypatch.setattr(main, "ROOT", home)
    assert settings.main(REQUEST) == 0
    made = trials_in(home)
    assert [trial.limit for trial in made] == [0.0] * 5
    begun = request_in(home / settings.appraised(request, CONFIGURED, 35.0, 35.0).home)
    assert begun is not None and begun.guessed_from == "the best settings so far"
    with pytest.raises(UserError, match="no settings have a valid rate"):
        best_of(made)


def trial(number: int, limit: float, seqs: int = 16) -> Trial:
    return Trial(
        number=number,
        values={SEQS: seqs},
        limit=limit,
        deviation=0.02,
        why="" if limit else "it doesn't start",
        probes=2,
        spent_s=80.0,
        home="h",
    )


def test_what_is_configured_stays_unless_another_is_clearly_better() -> None:
    first = trial(1, 20.0)
    assert best_of([first, trial(2, 20.4, 32)]) == first
    assert best_of([first, trial(2, 20.8, 32), trial(3, 0.0, 64)]).number == 2
    assert best_of([trial(1, 0.0), trial(2, 1.0, 32)]).number == 2


REHEARSAL = ("scenario=Server,Offline",)
AMD = (
    *("experiment=amd-v5.1", "system=amd-mi300x", "benchmark=llama2-70b-99.9"),
    "scenario=Server,Offline",
)


def runs(*overrides: str) -> dict[str, str]:
    """Of a plan, by scenario."""
    jobs = planned(*overrides).jobs
    return {job.key.rsplit("/")[-1]: job.config for job in jobs if job.step == "performance_run"}


@pytest.mark.parametrize(
    ("chosen", "values"),
    [
        (REHEARSAL, {SEQS: 48, TOKENS: 2048}),
        (AMD, {SEQS: 700, "environment.VLLM_LLAMA2_MLPERF_MAX_TARGET_DECODE_BATCH": 640}),
    ],
    ids=["vLLM", "AMD's"],
)
def test_overrides_name_settings_for_one_scenario(
    chosen: tuple[str, ...], values: dict[str, int]
) -> None:
    before = runs(*chosen)
    words = overrides_of(before["Server"], values)
    assert len(words) == len(values)
    after = runs(*chosen, *words)
    assert after["Server"] == with_values(before["Server"], values)
    assert after["Offline"] == before["Offline"]
    space = load().settings.spaces[json.loads(before["Server"])["engine"]["kind"]]
    begin = configured(before["Server"], space)
    assert set(begin) >= set(values)
    assert space.allows(begin)
    assert overrides_of(before["Server"], begin) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[16, 32, 64, 128, 256]", "[16, 16]", "max_num_seqs has 1 values, so nothing to choose"),
        ("[16, 32, 64, 128, 256]", "[16, many]", "max_num_seqs"),
        ("      rising: []", "      rising: [[arguments.seed]]", "rising names arguments.seed"),
        ("    vllm: #", "    vllm: {} #", "can't be read"),
        ("  trials: 12", "  trials: 0", "settings.trials"),
    ],
)
def test_a_bad_space_is_told_in_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "tune.yaml"
    shutil.copy(PATH, path)
    edit(path, old, new)
    with pytest.raises(UserError) as told:
        load(path)
    assert said in str(told.value)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)

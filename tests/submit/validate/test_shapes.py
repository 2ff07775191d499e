"""What published rounds showed to be no fault, made anew here, and the fault next to each."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steps.mlperf.detail import without_indices
from steps.mlperf.rounds import load
from steps.submit.validate.findings import Finding, Severity
from steps.submit.validate.submission import validate
from tests.submit.validate import trees
from tests.submit.validate.damages import (
    ACCURACY_LOG,
    ANSWERS,
    DETAIL,
    OFFLINE_LOG,
    PERFORMANCE,
    POWER_TIME,
    SCORES,
    TEST06,
    Damage,
    append,
    delete,
    each,
    field,
    link,
    log,
    move,
    powered,
    replace,
    whole_log,
    write,
)
from tests.submit.validate.trees import CLOSED, OFFLINE, OPEN, SDXL, SERVER, SYSTEM, record

SERVER_CONF = f"{CLOSED}/measurements/{SYSTEM}/llama2-70b-99/Server"


def errors(root: Path, round_name: str = "v5.1") -> list[Finding]:
    report = validate(root, round_name, processes=1)
    return [found for found in report.findings if found.severity is Severity.ERROR]


def values(root: Path, path: str) -> dict[str, tuple[object, float]]:
    """Keys of a detail log: the first value and its time in ms."""
    found: dict[str, tuple[object, float]] = {}
    for line in (root / path).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line.removeprefix(":::MLLOG "))
        found.setdefault(entry["key"], (entry["value"], entry["time_ms"]))
    return found


def began_elsewhere(path: str, hours: float, loading_s: float = 0) -> Damage:
    """LoadGen prints local time as test_datetime, and loads samples before the queries begin."""

    def damage(root: Path) -> None:
        begin = datetime.strptime(str(values(root, path)["power_begin"][0]), POWER_TIME)
        local = begin + timedelta(hours=hours, seconds=-loading_s)
        log(path, "test_datetime", f"{local:%FT%TZ}")(root)
        shifted(path, loading_s)(root)

    return damage


def shifted(path: str, seconds: float) -> Damage:
    """Let a log's own clock say that the run ended so much later."""

    def damage(root: Path) -> None:
        lines = (root / path).read_text(encoding="utf-8").splitlines(keepends=True)
        for at, line in enumerate(lines):
            entry = json.loads(line.removeprefix(":::MLLOG "))
            if entry["time_ms"] > 1:
                lines[at] = record(entry["key"], entry["value"], entry["time_ms"] + seconds * 1000)
        (root / path).write_text("".join(lines), encoding="utf-8")

    return damage


def sets(path: str, *spans: tuple[float, float]) -> Damage:
    """power_begin and power_end once for every loaded set, in seconds from the first begin."""

    def damage(root: Path) -> None:
        begin = datetime.strptime(str(values(root, path)["power_begin"][0]), POWER_TIME)
        lines = [
            line
            for line in (root / path).read_text(encoding="utf-8").splitlines(keepends=True)
            if '"power_' not in line
        ]
        for start, end in spans:
            for key, at in (("power_begin", start), ("power_end", end)):
                time = begin + timedelta(seconds=at)
                lines.append(record(key, f"{time:%m-%d-%Y %H:%M:%S.000}", end * 1000))
        (root / path).write_text("".join(lines), encoding="utf-8")

    return damage


def crlf(path: str) -> Damage:
    def damage(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data.replace(b"\n", b"\r\n"))

    return damage


def shortened(path: str) -> Damage:
    def damage(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        trees.write(root / path, f"{text[:4096]}\n\n...\n\n{text[-4096:]}")

    return damage


def hashed_twice(root: Path) -> None:
    text = trees.answers(3, timed=False, salt=1)
    trees.write(root / OFFLINE / "accuracy" / ANSWERS, text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    append(f"{OFFLINE}/accuracy/{SCORES}", f"\nhash={digest}\n")(root)


LATER = 365 * 24 * 3600


def two_systems(model: str, result: str, later_s: float) -> Damage:
    """A second system with copies of a model's results, run so much later."""

    def damage(root: Path) -> None:
        other = "16xExample"
        for tree in ("results", "measurements", "compliance"):
            source = root / CLOSED / tree / SYSTEM / model
            copied = root / CLOSED / tree / other / model
            shutil.copytree(source, copied)
            for path in copied.rglob(f"{SYSTEM}.json"):
                path.rename(path.with_name(f"{other}.json"))
            for path in copied.rglob(DETAIL):
                moved(path, later_s)
        systems = root / CLOSED / "systems"
        shutil.copyfile(systems / f"{SYSTEM}.json", systems / f"{other}.json")
        for path in (root / CLOSED / "compliance" / other).rglob(f"TEST06/accuracy/{ANSWERS}"):
            path.unlink()

    return damage


def moved(path: Path, seconds: float) -> None:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for at, line in enumerate(lines):
        entry = json.loads(line.removeprefix(":::MLLOG "))
        if entry["key"].startswith("power_"):
            time = datetime.strptime(entry["value"], POWER_TIME) + timedelta(seconds=seconds)
            lines[at] = record(entry["key"], f"{time:%m-%d-%Y %H:%M:%S.000}", entry["time_ms"])
        elif entry["key"] == "test_datetime":
            time = datetime.fromisoformat(entry["value"]) + timedelta(seconds=seconds)
            lines[at] = record(entry["key"], f"{time:%FT%TZ}")
    path.write_text("".join(lines), encoding="utf-8")


HOLDS: Mapping[str, Damage] = {
    "a machine in Los Angeles": began_elsewhere(OFFLINE_LOG, -8),
    "a machine in Kolkata": began_elsewhere(OFFLINE_LOG, 5.5),
    "a machine in Kathmandu": began_elsewhere(ACCURACY_LOG, 5.75),
    "twenty minutes of loading": began_elsewhere(OFFLINE_LOG, 0, 1200),
    "loading on the Chatham Islands": began_elsewhere(OFFLINE_LOG, 13.75, 407),
    "code of a model behind a link": each(
        move(f"{CLOSED}/code/llama2-70b-99", f"{CLOSED}/code/llama2-70b"),
        link(f"{CLOSED}/code/llama2-70b-99", "llama2-70b"),
    ),
    "a colon in a name": write(f"{CLOSED}/code/llama2-70b-99/12:30.json", "{}"),
    "a key of a measurement twice": replace(
        f"{SERVER_CONF}/{SYSTEM}.json", "{", '{"retraining": "Yes", '
    ),
    "a mark between lines that end in CRLF": crlf(f"{OFFLINE}/accuracy/{ANSWERS}"),
    "a second hash of the truncation tool": append(
        f"{OFFLINE}/accuracy/{SCORES}", f"\nhash={'a' * 64}\n"
    ),
    "a whole log under the second of two hashes": hashed_twice,
    "93 answers of a test that asks for 100": write(
        f"{TEST06}/accuracy/{ANSWERS}", trees.answers(93, timed=True, salt=51)
    ),
    "a shortened log of a test": shortened(f"{TEST06}/accuracy/{ANSWERS}"),
    "equal answers of two systems, one by one": two_systems("stable-diffusion-xl", SDXL, LATER),
    "three loaded sets of samples": sets(ACCURACY_LOG, (0, 100), (130, 240), (251, 615)),
    "what mlperf.conf sets anyway": append(
        f"{SERVER_CONF}/user.conf",
        "*.*.sample_concatenate_permutation = 1\nllama2-70b.*.use_token_latencies = 1\n"
        "*.Server.ttft_latency = 2000\n*.Server.tpot_latency = 200\n*.*.target_latency = 0\n"
        "*.Server.target_latency_percentile = 99\n*.*.infer_token_latencies = 0\n",
    ),
    "keys that LoadGen reads in other scenarios": append(
        f"{SERVER_CONF}/user.conf",
        "*.*.samples_per_query = 248\n*.MultiStream.target_latency = 13\n",
    ),
    "the latency limit of image generation": append(
        f"{CLOSED}/measurements/{SYSTEM}/stable-diffusion-xl/Server/user.conf",
        "*.Server.target_latency = 20000\n",
    ),
}
STILL: Mapping[str, tuple[Damage, str]] = {
    "a whole log in CRLF under another hash": (
        each(whole_log(f"{OFFLINE}/accuracy/{ANSWERS}"), crlf(f"{OFFLINE}/accuracy/{ANSWERS}")),
        "accuracy-hash-wrong",
    ),
    "a whole log under two other hashes": (
        each(
            whole_log(f"{OFFLINE}/accuracy/{ANSWERS}"),
            append(f"{OFFLINE}/accuracy/{SCORES}", f"\nhash={'a' * 64}\n"),
        ),
        "accuracy-hash-wrong",
    ),
    "a second hash that is none": (
        append(f"{OFFLINE}/accuracy/{SCORES}", "\nhash=xyz\n"),
        "accuracy-hash-format",
    ),
    "a key of a measurement twice, at last empty": (
        replace(f"{SERVER_CONF}/{SYSTEM}.json", "}", ', "retraining": ""}'),
        "measurement-field",
    ),
    "a test that logged no answer": (
        write(f"{TEST06}/accuracy/{ANSWERS}", "[\n]\n"),
        "compliance-log",
    ),
    "a shortened log with a wrong answer": (
        each(
            shortened(f"{TEST06}/accuracy/{ANSWERS}"),
            replace(f"{TEST06}/accuracy/{ANSWERS}", '"token_count" : 40', '"token_count" : 41'),
        ),
        "compliance-log",
    ),
    "the run of another system": (two_systems("stable-diffusion-xl", SDXL, 0), "audit-copied-log"),
    "batched answers of another system": (
        two_systems("llama2-70b-99", OFFLINE, LATER),
        "audit-copied-log",
    ),
    "a hash of another system's log": (
        each(
            two_systems("stable-diffusion-xl", SDXL, LATER),
            write(
                f"{SDXL}/accuracy/{ANSWERS}",
                trees.answers(3, timed=False, salt=3) + "\n\n...\n\n]",
            ),
        ),
        "audit-copied-log",
    ),
    "a link out of the tree": (link(f"{CLOSED}/code/more", "/usr"), "symlink"),
    "code behind a link out of the tree": (
        each(delete(f"{CLOSED}/code/llama2-70b-99"), link(f"{CLOSED}/code/llama2-70b-99", "/usr")),
        "code-missing",
    ),
    "a link that leads nowhere": (link(f"{CLOSED}/code/more", "llama3"), "symlink"),
    "a newline in a name": (write(f"{CLOSED}/code/llama2-70b-99/a\nb", "a"), "unsafe-name"),
    "a power log without power": (
        write(f"{SERVER}/{PERFORMANCE}/spl.txt", "Time"),
        "performance-files",
    ),
    "a day that no time zone explains": (began_elsewhere(OFFLINE_LOG, 24), "audit-time"),
    "minutes that no time zone explains": (began_elsewhere(OFFLINE_LOG, -7.9), "audit-time"),
    "a run longer than the log's clock": (
        each(began_elsewhere(OFFLINE_LOG, 0), shifted(OFFLINE_LOG, -60)),
        "audit-time",
    ),
    "another percentile": (
        append(f"{SERVER_CONF}/user.conf", "*.Server.target_latency_percentile = 97\n"),
        "user-conf-open-only",
    ),
    "another limit of the whole sample": (
        append(
            f"{CLOSED}/measurements/{SYSTEM}/stable-diffusion-xl/Server/user.conf",
            "*.Server.target_latency = 30000\n",
        ),
        "user-conf-open-only",
    ),
    "no equal issue": (
        each(
            append(f"{SERVER_CONF}/user.conf", "*.*.sample_concatenate_permutation = 0\n"),
            log(
                f"{SERVER}/{PERFORMANCE}/{DETAIL}",
                "effective_sample_concatenate_permutation",
                False,
            ),
        ),
        "performance-equal-issue",
    ),
    "a clock that ran for ever": (shifted(OFFLINE_LOG, 1e290), "audit-time"),
    "a run before all calendars": (
        each(
            log(OFFLINE_LOG, "power_begin", "01-01-0001 00:00:00.000"),
            log(OFFLINE_LOG, "power_end", "01-01-0001 00:00:01.000"),
        ),
        "audit-time",
    ),
    "sets that overlap": (sets(ACCURACY_LOG, (0, 100), (90, 615)), "log-conflict"),
    "two sets in a performance run": (sets(OFFLINE_LOG, (0, 100), (110, 900)), "log-conflict"),
    "a set that began twice": (
        each(
            sets(ACCURACY_LOG, (0, 615)),
            log(ACCURACY_LOG, "loaded_qsl_set", None),
            lambda root: began_again(root),
        ),
        "log-conflict",
    ),
}


def began_again(root: Path) -> None:
    lines = (root / ACCURACY_LOG).read_text(encoding="utf-8").splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if "power_begin" in line)
    (root / ACCURACY_LOG).write_text("".join([*lines[: at + 1], *lines[at:]]), encoding="utf-8")


GPT_OSS = f"{CLOSED}/results/{SYSTEM}/gpt-oss-120b/Server"
WAN = f"{OPEN}/results/{SYSTEM}/wan-2.2-t2v-a14b/SingleStream"
GPT_OSS_LOG = f"{GPT_OSS}/accuracy/{DETAIL}"
HOLDS_IN_V6: Mapping[str, Damage] = {
    "two datasets and no token count": lambda root: None,
    "files of a harness beside the logs": each(
        write(f"{GPT_OSS}/accuracy/metadata.json", "{}"),
        write(f"{GPT_OSS}/performance/run_1/metadata.json", "{}"),
    ),
    "a calibration document for each engine": move(
        f"{CLOSED}/documentation/calibration.md", f"{CLOSED}/documentation/calibration_engine.md"
    ),
    "no calibration document": delete(f"{CLOSED}/documentation/calibration.md"),
    "src is a link": each(move(f"{CLOSED}/src", f"{CLOSED}/code"), link(f"{CLOSED}/src", "code")),
    "a log of LoadGen 5, without the count": log(
        GPT_OSS_LOG, "effective_accuracy_sample_count", None
    ),
}
STILL_IN_V6: Mapping[str, tuple[Damage, str]] = {
    "no summary": (delete(f"{GPT_OSS}/accuracy/mlperf_log_summary.txt"), "accuracy-files"),
    "src is a link to nothing": (
        each(delete(f"{CLOSED}/src"), link(f"{CLOSED}/src", "code")),
        "code-missing",
    ),
    "open, without the videos": (delete(f"{WAN}/accuracy/videos"), "accuracy-images-missing"),
    "open, without one of them": (
        delete(f"{WAN}/accuracy/videos/130.mp4"),
        "accuracy-images-missing",
    ),
    "accuracy over the performance dataset": (
        each(
            log(GPT_OSS_LOG, "effective_accuracy_sample_count", None),
            log(GPT_OSS_LOG, "qsl_reported_total_count", 6396),
        ),
        "accuracy-dataset",
    ),
    "accuracy over a part": (
        log(GPT_OSS_LOG, "effective_accuracy_sample_count", 100),
        "accuracy-dataset",
    ),
    "more answers than samples": (
        log(GPT_OSS_LOG, "qsl_reported_total_count", 100),
        "accuracy-dataset",
    ),
    "no exact_match": (
        replace(f"{GPT_OSS}/accuracy/accuracy.txt", "'exact_match': 83.396", ""),
        "accuracy-metric",
    ),
    "answers longer than they can be": (
        append(f"{GPT_OSS}/accuracy/accuracy.txt", "'tokens_per_sample': 11000.5\n"),
        "accuracy-high",
    ),
}


@pytest.fixture(scope="session")
def valid_v6(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("valid") / "v6"
    trees.build_v6(root)
    return root


@pytest.fixture
def fresh_v6(valid_v6: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(valid_v6, tmp_path / "v6"))


@pytest.mark.parametrize("shape", HOLDS_IN_V6)
def test_what_v6_has_holds(shape: str, fresh_v6: Path) -> None:
    HOLDS_IN_V6[shape](fresh_v6)
    assert errors(fresh_v6, "v6.0") == []


@pytest.mark.parametrize("fault", STILL_IN_V6)
def test_the_fault_next_to_it_is_found_in_v6(fault: str, fresh_v6: Path) -> None:
    damage, code = STILL_IN_V6[fault]
    damage(fresh_v6)
    assert code in {found.code for found in errors(fresh_v6, "v6.0")}


@pytest.mark.parametrize("shape", HOLDS)
def test_what_rounds_have_holds(shape: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    HOLDS[shape](root)
    assert errors(root) == []


@pytest.mark.parametrize("fault", STILL)
def test_the_fault_next_to_it_is_found(fault: str, fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    damage, code = STILL[fault]
    damage(root)
    assert code in {found.code for found in errors(root)}


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    trees.build_edge(tmp_path / "edge")
    return tmp_path / "edge"


EDGE = f"{OPEN}/results/{SYSTEM}/retinanet"


def test_edge_results_may_be_inferred(edge: Path) -> None:
    """Inference rules, edge suite: 8 x the latency of one query, and its throughput."""
    assert errors(edge) == []
    rows = {row.scenario: (row.result, row.units) for row in validate(edge, "v5.1").rows}
    assert rows == {
        "SingleStream": (20.0, "Latency (ms)"),
        "MultiStream": (200.0, "Latency (ms)"),
        "Offline": (52.5, "Samples/s"),
    }


def test_a_datacenter_infers_nothing(edge: Path) -> None:
    field(f"{OPEN}/systems/{SYSTEM}.json", "system_type", "datacenter")(edge)
    found = {(item.code, item.path.split("/")[5]) for item in errors(edge) if EDGE in item.path}
    assert {("performance-scenario", "Offline"), ("accuracy-scenario", "MultiStream")} <= found


def test_nothing_is_inferred_from_offline(edge: Path) -> None:
    log(f"{EDGE}/MultiStream/performance/run_1/{DETAIL}", "effective_scenario", "Offline")(edge)
    assert "performance-scenario" in {item.code for item in errors(edge)}


def test_too_few_queries_infer_no_multistream(edge: Path) -> None:
    path = f"{EDGE}/MultiStream/performance/run_1/{DETAIL}"
    log(path, "early_stopping_latency_ms", 0)(edge)
    assert "performance-result" in {item.code for item in errors(edge)}


@pytest.mark.parametrize(("mean", "samples"), [(5e-324, 8), (1e308, 8), (1e-300, 2**63), (0, 8)])
def test_a_mean_that_is_none_infers_nothing(mean: float, samples: int, edge: Path) -> None:
    path = f"{EDGE}/Offline/performance/run_1/{DETAIL}"
    append(path, record("result_mean_query_latency_ns", mean))(edge)
    log(path, "effective_scenario", "MultiStream")(edge)
    log(path, "effective_samples_per_query", samples)(edge)
    report = validate(edge, "v5.1", processes=1)
    (row,) = [row for row in report.rows if row.scenario == "Offline"]
    assert row.result is None or 0 <= row.result < 1
    assert row.result or "performance-result" in {item.code for item in report.findings}


def test_offline_is_inferred_from_multistream(edge: Path) -> None:
    """200 ms for a query of eight samples are 40 samples/s."""
    path = f"{EDGE}/Offline/performance/run_1/{DETAIL}"
    append(path, record("result_mean_query_latency_ns", 200_000_000))(edge)
    log(path, "effective_scenario", "MultiStream")(edge)
    log(path, "effective_samples_per_query", 8)(edge)
    rows = {row.scenario: row.result for row in validate(edge, "v5.1", processes=1).rows}
    assert rows["Offline"] == pytest.approx(40)


def test_the_inferred_result_has_the_accuracy_of_its_source(edge: Path) -> None:
    log(f"{EDGE}/Offline/accuracy/{DETAIL}", "effective_scenario", "Offline")(edge)
    assert "accuracy-scenario" in {item.code for item in errors(edge)}


def test_expected_latencies_are_no_limits(edge: Path) -> None:
    """In SingleStream and MultiStream target_latency is what the user expects."""
    (edge / "open").rename(edge / "closed")
    field(f"{CLOSED}/systems/{SYSTEM}.json", "division", "closed")(edge)
    path = f"{CLOSED}/measurements/{SYSTEM}/retinanet/SingleStream/user.conf"
    append(path, "*.SingleStream.target_latency = 132.2\n")(edge)
    assert "user-conf-open-only" not in {item.code for item in errors(edge)}
    append(path, "*.SingleStream.target_latency_percentile = 50\n")(edge)
    assert "user-conf-open-only" in {item.code for item in errors(edge)}


def test_a_power_measurement_is_no_error(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    powered(SERVER)(root)
    assert errors(root) == []
    path = f"{SERVER}/performance/power"
    assert [
        (item.severity, item.path)
        for item in validate(root, "v5.1", processes=1).findings
        if item.code == "power-not-checked"
    ] == [(Severity.WARNING, path)]


@pytest.mark.parametrize("folder", ["run_1", "ranging", "power"])
def test_a_trace_may_lie_beside_the_files_of_a_power_measurement(
    fresh_tree: Callable[[], Path], folder: str
) -> None:
    root = fresh_tree()
    each(powered(SERVER), write(f"{SERVER}/performance/{folder}/mlperf_log_trace.json", ""))(root)
    assert errors(root) == []


METER = f"{SERVER}/{PERFORMANCE}/spl.txt"


@pytest.mark.parametrize(
    ("damage", "code", "place"),
    [
        (delete(f"{SERVER}/performance/power/server.log"), "power-files", "power/server.log"),
        (write(f"{SERVER}/performance/power/more.csv", ""), "power-files", "power/more.csv"),
        (delete(f"{SERVER}/performance/ranging"), "power-files", "ranging/spl.txt"),
        (delete(METER), "power-files", "run_1/spl.txt"),
        (write(METER, ""), "power-samples", "run_1/spl.txt"),
        (replace(METER, "2884.0", "0.0"), "power-samples", "run_1/spl.txt"),
        (replace(METER, "2884.0", "nan"), "power-samples", "run_1/spl.txt"),
        (replace(METER, "Watts,2884.0", "Watts"), "power-samples", "run_1/spl.txt"),
        (replace(METER, ",0", ",x"), "power-samples", "run_1/spl.txt"),
    ],
)
def test_a_power_measurement_that_shows_nothing_is_found(
    fresh_tree: Callable[[], Path], damage: Callable[[Path], None], code: str, place: str
) -> None:
    root = fresh_tree()
    each(powered(SERVER), damage)(root)
    found = {(item.code, item.path.partition("performance/")[2]) for item in errors(root)}
    assert (code, place) in found
    assert {one for one, _ in found} == {code}


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [
        ("mobilenet-v2-precision_int8-224", "resnet"),
        ("efficientnet-fp32-lite3", "resnet"),
        ("my-resnet50", "resnet"),
        ("bert-99.9-distilled", "bert-99.9"),
        ("bert-99-pruned", "bert-99"),
        ("bert-pruned", None),
        ("llama2-70b-pruned", None),
    ],
)
def test_names_that_the_official_checker_infers(name: str, benchmark: str | None) -> None:
    assert load("v5.1").inferred(name) == benchmark


def test_an_inferred_name_is_for_the_open_division(edge: Path) -> None:
    for tree in ("results", "measurements", "code"):
        home = edge / OPEN / (f"{tree}/{SYSTEM}" if tree != "code" else tree)
        (home / "retinanet").rename(home / "mobilenet-v1")
    found = {item.code for item in errors(edge)}
    assert "model-unknown" not in found
    assert "accuracy-dataset" in found, "it is judged as resnet"
    (edge / "open").rename(edge / "closed")
    assert "model-unknown" in {item.code for item in errors(edge)}


def test_each_submitter_has_a_layout_of_its_own(fresh_v6: Path, valid_tree: Path) -> None:
    shutil.copytree(valid_tree / CLOSED, fresh_v6 / "closed/Another")
    found = [item for item in errors(fresh_v6, "v6.0") if item.code == "tree-layout"]
    assert [item.path for item in found] == ["closed/Another"]
    assert not [item for item in errors(fresh_v6, "v6.0") if item.path.startswith(CLOSED)]


def test_the_one_with_two_hashes_is_named(fresh_tree: Callable[[], Path]) -> None:
    """Not the system whose hash it has besides its own."""
    root = fresh_tree()
    digest = (root / SERVER / "accuracy" / SCORES).read_text(encoding="utf-8").split("hash=")[1]
    append(f"{OFFLINE}/accuracy/{SCORES}", f"hash={digest}")(root)
    named = [item for item in errors(root) if item.code == "audit-copied-log"]
    assert [item.path for item in named] == [OFFLINE]
    assert SERVER in named[0].what


def test_a_shortened_test_log_is_called_so(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    shortened(f"{TEST06}/accuracy/{ANSWERS}")(root)
    found = validate(root, "v5.1", processes=1).findings
    (told,) = [item for item in found if item.path.startswith(TEST06)]
    assert (told.code, told.severity) == ("compliance-log-missing", Severity.WARNING)
    assert "two ends" in told.what


def test_another_dataset_says_nothing_of_speed(fresh_v6: Path) -> None:
    log(GPT_OSS_LOG, "power_end", "07-30-2025 23:00:00.000")(fresh_v6)
    shifted(GPT_OSS_LOG, 86400)(fresh_v6)
    codes = {item.code for item in validate(fresh_v6, "v6.0").findings}
    assert "audit-accuracy-speed" not in codes


@given(st.text("0123456789,] -.x", max_size=30))
@example("0,0")
@example("0,0,01")
def test_a_list_of_indices_is_skipped_only_if_it_is_one(inside: str) -> None:
    line = f':::MLLOG {{"key": "loaded_qsl_set", "value": [{inside}], "time_ms": 1}}'.encode()
    short = without_indices(line)

    def said(text: bytes) -> object:
        try:
            return json.loads(text.removeprefix(b":::MLLOG ")) | {"value": []}
        except ValueError:
            return None

    assert said(short) == said(line)
    if inside and set(inside) <= set("0123456789,") and said(line):
        assert b'"value": []' in short


def test_a_damaged_list_of_indices_is_found(fresh_tree: Callable[[], Path]) -> None:
    root = fresh_tree()
    damaged = ",".join(map(str, range(1000, 2000))) + ",,7"
    replace(OFFLINE_LOG, json.dumps(list(range(20))), f"[{damaged}]")(root)
    assert "log-damaged" in {item.code for item in errors(root)}


def test_a_latency_has_the_unit_of_its_benchmark(valid_v6: Path) -> None:
    rows = {row.model: (row.result, row.units) for row in validate(valid_v6, "v6.0").rows}
    assert rows["wan-2.2-t2v-a14b"] == (pytest.approx(27.4), "Latency (s)")

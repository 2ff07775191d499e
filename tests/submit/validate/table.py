"""docs/reference/validator.md: what the official checker checks and accepts, and our code.

`python -m tests.submit.validate.table` writes the document; a test keeps it, the codes and the
damages in step.
"""

from collections.abc import Iterator

from bench.rounds import table
from steps import ROOT
from steps.mlperf.rounds import names
from steps.submit.validate.findings import codes

DOCUMENT = ROOT / "docs/reference/validator.md"

OFFICIAL: tuple[tuple[str, str, str], ...] = (
    ("check_results_dir", "a file in the root that is neither *.md nor *.pdf", "root-file"),
    ("check_results_dir", "a file beside the submitters", "division-file"),
    ("check_results_dir", "a symbolic link that leads nowhere", "symlink"),
    ("check_results_dir", "a file over 50 MiB", "file-size"),
    ("check_results_dir", "a name that begins with a dot", "hidden-name"),
    ("check_results_dir", "a name with a blank", "space-in-name"),
    ("check_results_dir", "__pycache__", "pycache"),
    ("check_results_dir", "an empty directory", "empty-directory"),
    ("check_results_dir", "a damaged model_mapping.json (traceback)", "model-mapping-damaged"),
    ("check_results_dir", "measurements or systems without results", "without-results"),
    ("check_results_dir", "no measurements/ (traceback)", "measurement-missing"),
    ("check_results_dir", "no calibration.md", "calibration-missing"),
    ("check_results_dir", "no description of a system", "system-missing"),
    ("check_results_dir", "a description that is no JSON object (traceback)", "system-damaged"),
    ("check_results_dir", "an unknown status", "system-status"),
    ("check_results_dir", "an unknown system_type", "system-type"),
    ("check_system_desc_id", "a missing field", "system-field-missing"),
    ("check_system_desc_id", "an empty field that needs an answer", "system-field-empty"),
    ("check_system_desc_id", "another submitter than the directory's", "system-submitter"),
    ("check_system_desc_id", "another division than the directory's", "system-division"),
    ("is_system_over_network", "is_network against the division", "system-network"),
    ("log_result", "a number where a text is joined (traceback)", "system-field-type"),
    ("check_results_dir", "an unknown model", "model-unknown"),
    ("check_results_dir", "a model that the type of system has not", "model-not-for-system"),
    ("check_results_dir", "a scenario that the model has not", "scenario-not-allowed"),
    ("check_results_dir", "an unknown scenario (traceback in open)", "scenario-unknown"),
    ("check_results_dir", "a required scenario is missing", "scenario-missing"),
    ("check_results_dir", "neither Server nor Interactive", "scenario-one-of"),
    ("check_results_dir", "no measurement directory", "measurement-missing"),
    ("check_measurement_dir", "no user.conf or README.md", "measurement-file-missing"),
    ("check_measurement_dir", "an empty user.conf or README.md", "measurement-file-empty"),
    ("check_measurement_dir", "no <system>*.json", "measurement-json-missing"),
    ("check_measurement_dir", "a damaged <system>*.json (traceback)", "measurement-json-damaged"),
    ("check_measurement_dir", "a missing or empty field", "measurement-field"),
    ("check_measurement_dir", "no code of the model", "code-missing"),
    ("check_power_dir", "other files than a power measurement's", "power-files"),
    ("get_power_metric", "no sample of the meter in the run's time", "power-samples"),
    ("check_power_more", "a fault in the meter (a warning: not judged)", "power-not-checked"),
    ("check_results_dir", "no performance/run_1", "performance-missing"),
    ("check_results_dir", "other files than a run's in run_1", "performance-files"),
    ("MLPerfLog", "a record that is no JSON, or not UTF-8", "log-damaged"),
    ("MLPerfLog", "a value of another type (exception)", "log-value"),
    ("check_performance_dir", "result_validity is not VALID", "performance-invalid"),
    ("check_performance_dir", "num_errors is not 0", "performance-error"),
    ("check_performance_dir", "too few samples in memory", "performance-sample-count"),
    ("check_performance_dir", "seeds of another round", "performance-seed"),
    ("check_performance_dir", "no equal issue mode", "performance-equal-issue"),
    ("check_performance_dir", "min_duration below 600 s", "performance-duration"),
    (
        "check_performance_dir",
        "too few samples in the Offline query",
        "performance-offline-samples",
    ),
    ("check_performance_dir", "no Offline query", "performance-min-queries"),
    ("check_performance_dir", "early stopping by a longer latency", "performance-target-latency"),
    ("check_performance_dir", "no result in the benchmark's metric, or 0", "performance-result"),
    ("check_performance_dir", "sut_name over a network", "performance-network"),
    ("get_inferred_result", "Interactive that is not LoadGen's Server", "performance-scenario"),
    ("extra_check_llm", "no token latencies", "performance-token-latencies"),
    ("extra_check_llm", "p99 TTFT or TPOT not below the limit", "performance-latency"),
    ("check_results_dir", "no accuracy.txt", "accuracy-missing"),
    ("check_results_dir", "other files than an accuracy run's", "accuracy-files"),
    ("check_accuracy_dir", "accuracy.txt that can't be read (traceback)", "accuracy-text-damaged"),
    ("check_accuracy_dir", "a metric that is not printed", "accuracy-metric"),
    ("check_accuracy_dir", "a metric below its target", "accuracy-low"),
    ("check_accuracy_dir", "a metric above its limit", "accuracy-high"),
    ("check_accuracy_dir", "no hash= line", "accuracy-hash-missing"),
    ("check_accuracy_dir", "a log over 10 KiB", "accuracy-not-truncated"),
    ("check_accuracy_dir", "LoadGen errors in the accuracy run (traceback)", "accuracy-error"),
    ("check_extra_files", "missing images", "accuracy-images-missing"),
    ("check_compliance_dir", "a missing test", "compliance-missing"),
    ("check_compliance_perf_dir", "missing files or TEST PASS", "compliance-files"),
    ("check_compliance_acc_dir", "TEST06 without its three lines", "compliance-failed"),
    ("check_compliance_acc_dir", "TEST01 metrics that differ", "compliance-delta"),
)
"""Function of tools/submission/submission_checker.py (v5.1.1), what it rejects, our code."""

PASSED: tuple[tuple[str, str], ...] = (
    ("a hash that is no sha256", "accuracy-hash-format"),
    ("a hash that is not the log's", "accuracy-hash-wrong"),
    ("an accuracy run in performance mode", "accuracy-mode"),
    ("an accuracy run with other seeds", "accuracy-seed"),
    ("an accuracy run of another scenario", "accuracy-scenario"),
    ("an accuracy run over another dataset (an ERROR line, no failure)", "accuracy-dataset"),
    ("accuracy scored over a part of the dataset", "accuracy-sample-count"),
    ("an accuracy log that is a compliance test's, or another result's", "audit-copied-log"),
    ("an accuracy log without answers", "accuracy-log-shape"),
    ("a performance log that is really a TEST04 or TEST06 run", "performance-audit"),
    ("a performance run that logged answers", "performance-answers"),
    ("a performance log in another mode", "performance-mode"),
    ("a log of Offline in Server and the like", "performance-scenario"),
    ("a performance run over a part of the dataset", "performance-dataset"),
    ("a minimum duration met by the setting only", "performance-duration-measured"),
    ("early_stopping_met and other conditions that were not met", "performance-flag"),
    ("errors hidden behind num_errors 0", "performance-error-hidden"),
    ("Interactive judged by the limits of Server", "performance-judged-limits"),
    ("NaN as a result", "log-value"),
    ("INVALID results (the checker of v6.0 and v6.1)", "performance-invalid"),
    ("a key that is logged twice with two values", "log-conflict"),
    ("an empty summary", "summary-empty"),
    ("a summary of another run", "summary-contradicts"),
    ("user.conf that contradicts the log", "user-conf-contradicts"),
    ("user.conf with settings of the open division", "user-conf-open-only"),
    ("user.conf that nobody can repeat the run with", "user-conf-no-target"),
    ("files that are no images", "accuracy-image-fake"),
    ("images without captions.txt", "accuracy-captions-missing"),
    ("TEST06 without its log", "compliance-log-missing"),
    ("a TEST06 log that fails the test", "compliance-log"),
    ("TEST06 of Server without the first-token check", "compliance-first-token"),
    ("a compliance run without the test's settings", "compliance-settings"),
    ("a verification of other runs", "compliance-contradicts"),
    ("TEST01 or TEST04 faster or slower than allowed", "compliance-speed"),
    ("an unknown division (only logged)", "root-directory"),
    ("a submitter without results (skipped)", "submitter-without-results"),
    ("a tree without any result (looks OK)", "tree-empty"),
    ("an empty calibration.md", "calibration-empty"),
    ("two spellings of one scenario", "scenario-twice"),
    ("a file code/<model> that leads out of code/", "code-outside"),
)
"""What the official checker accepts though it is wrong, and our code."""

HEAD = """\
# The validator

`./reproduce validate DIR [--round v5.1|v6.0|v6.1]` reads a submission tree, ours or another's, and
lists everything that is wrong with it: one line each, with place and fix. It never writes into the
tree. `./reproduce explain CODE` says more about a finding; `--json [FILE]` and `--html FILE` write
the findings for machines and for people. `--official PATH` also runs the checker, the truncation
and the report tool of a checkout of mlcommons/inference, and shows where their verdicts differ (the
report tool needs a Python that has its packages, `--official-python`). Exit status 1 means that
there is an error.

An **error** makes the result worthless or wrong; a **warning** needs a look; **advice** may wait.
In the open division missed accuracy targets, a missing hash and an untruncated log are warnings, as
in the official checker.

The rules of a round are data (`conf/round/`). The checks of v5.1.1 apply to every round: the
checker of v6.0 and v6.1 dropped many of them, and accepts INVALID results. Only what it permits on
purpose is no error there: other files beside the logs, and no calibration document.

It doesn't judge v6.1's endpoint submissions, and reports them as errors. Of a power measurement it
judges the files and the times, and warns that the meter has to be judged by `--official`. A
result of an edge system that is inferred from another scenario is judged by that scenario's runs.
For TEST08 it accepts what was printed, and warns.
Without the full accuracy log the hash of a truncated one can't be checked; its form can, and so can
that it isn't another run's.

`python -m tests.submit.validate.table` writes this page. Each code is tested by
`tests/submit/validate/test_damages.py::test_damage_is_found[<code>]`, which damages a valid tree.
"""


ROUNDS = """\
## Whole rounds

`make rounds ROUNDS=DIR` holds the validator and the official checker against every result of two
published rounds (`python -m bench.rounds`). What they judge differently stands in a reviewed table,
`bench/differences.yaml`, with one place for each; any other difference fails. A *true find* is a
fault that the official checker passed, *stricter on purpose* a rule that it doesn't enforce. There
is no false alarm and no result that it alone refuses.
"""


def rounds() -> Iterator[str]:
    """The reviewed differences of each round."""
    yield ROUNDS
    yield "| round | kind | of | code | what | rests on |"
    yield "|---|---|---|---|---|---|"
    for name in names():
        for entry in table(name):
            counts = {"result": entry.results, "tree": entry.trees}
            told = " and ".join(_counted(count, what) for what, count in counts.items() if count)
            cells = (name, entry.kind, told, f"`{entry.code}`", entry.reason, entry.source)
            yield "| " + " | ".join(cell.replace("*", "\\*") for cell in cells) + " |"
    yield ""


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def document() -> str:
    """The whole text."""
    lines = [HEAD, "## What the official checker (v5.1.1) rejects", ""]
    lines += ["| its function | what it rejects | code |", "|---|---|---|"]
    lines += [f"| `{name}` | {what} | `{code}` |" for name, what, code in OFFICIAL]
    lines += ["", "## What it lets pass", "", "| what passes | code |", "|---|---|"]
    lines += [f"| {what} | `{code}` |" for what, code in PASSED]
    lines += ["", *rounds()]
    lines += ["## Every code", "", "| code | severity | why |", "|---|---|---|"]
    for code in codes().values():
        why = code.why.replace("|", "\\|").replace("*", "\\*")
        lines.append(f"| `{code.name}` | {code.severity.value} | {why} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")

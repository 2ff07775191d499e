"""Configuration of LoadGen: what a round demands of a benchmark, and the settings of a run."""

from steps.base.strict import Name, Positive, PositiveNumber, Rate, Strict


class Seeds(Strict):
    """LoadGen's seeds of a round, as 64-bit integers. LoadGen has them compiled in; the check
    compares.

    `qsl_rng_seed`: which samples are loaded. `sample_index_rng_seed`: which of them a query asks
    for. `schedule_rng_seed`: when queries of Server arrive.
    """

    qsl_rng_seed: int
    sample_index_rng_seed: int
    schedule_rng_seed: int


class Rules(Strict):
    """What a round demands of one benchmark in one scenario (`conf/round/`). The check judges by
    these.

    `round`: its name. `loadgen_version`: the LoadGen that its seeds are of. `seeds`: what the log
    has to have. `min_duration_ms`: the least duration, where the run's `loadgen` has none.
    `performance_sample_count`: samples that LoadGen loads. `dataset_size`: samples of the dataset;
    a cell with fewer departs from the rules. `offline_min_samples`: the least samples of Offline,
    which the validator demands of a tree. `ttft_ms`: limit of the p99 of the time to the first
    token; null: none. `tpot_ms`: limit of the p99 of the time per token after it; null: none.
    `latency_ms`: limit of the p99 of whole samples, where tokens aren't timed. `token_latencies`:
    LoadGen times tokens, and throughput is in tokens. `equal_issue`: only whole copies of the
    dataset are issued. `compliance_tests`: those that the benchmark owes.
    """

    round: Name
    loadgen_version: str
    seeds: Seeds
    min_duration_ms: Positive
    performance_sample_count: Positive
    dataset_size: Positive
    offline_min_samples: Positive
    ttft_ms: PositiveNumber | None
    tpot_ms: PositiveNumber | None
    latency_ms: PositiveNumber | None
    token_latencies: bool
    equal_issue: bool
    compliance_tests: tuple[Name, ...]


class RunRules(Strict):
    """The rules that a run itself depends on: a changed limit re-judges, it doesn't re-run.

    `round`: its name, for messages. `loadgen_version`: what has to be installed; its seeds are
    compiled in. `min_duration_ms`: the least duration, where `loadgen` has none.
    `performance_sample_count`: samples that LoadGen loads, where `loadgen` overrides none.
    """

    round: Name
    loadgen_version: str
    min_duration_ms: Positive
    performance_sample_count: Positive


MOST_QUERIES = 10**9
"""The most in one run: LoadGen and the harness keep tens of bytes for each."""


class Loadgen(Strict):
    """LoadGen settings of a run; `user.conf` is rendered from these and from nothing else.

    `model`: the name that LoadGen's compiled-in mlperf.conf knows ("llama2-70b",
    "llama2-70b-interactive"). `target_qps`: queries per second, Offline's samples per second.
    `min_duration_ms`: the least duration of a performance run. `min_query_count`: the least number
    of queries. `performance_sample_count_override`: samples that LoadGen loads.

    None keeps LoadGen's own value and writes no line.
    """

    model: Name
    target_qps: Rate
    min_duration_ms: Positive | None
    min_query_count: Positive | None
    performance_sample_count_override: Positive | None

    def sample_count(self, rules: Rules | RunRules) -> int:
        """Samples of LoadGen's sample set."""
        return self.performance_sample_count_override or rules.performance_sample_count

    def least_ms(self, rules: Rules | RunRules) -> int:
        """The shortest duration of the run."""
        return self.min_duration_ms or rules.min_duration_ms

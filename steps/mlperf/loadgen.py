"""LoadGen's names: its files, its scenarios, the keys of latencies in its detail log."""

SUMMARY = "mlperf_log_summary.txt"
DETAIL = "mlperf_log_detail.txt"
ANSWERS = "mlperf_log_accuracy.json"
TRACE = "mlperf_log_trace.json"
RUN_FILES = (SUMMARY, DETAIL)
"""What a submission carries of every run."""

USER_CONF = "user.conf"
AUDIT_CONFIG = "audit.config"

SAMPLES_FILE = "samples.csv"
"""What the harness writes beside LoadGen's files: moments and tokens of every sample."""

P99 = "99.00"
"""The percentile that limits are of, as LoadGen writes it."""

TTFT_KEY = "result_first_token_{}_percentile_latency_ns"
TPOT_KEY = "result_time_per_output_token_{}_percentile_ns"
LATENCY_KEY = "result_{}_percentile_latency_ns"
"""By percentile, in ns; LATENCY_KEY of whole samples."""


def loadgen_scenario(scenario: str) -> str:
    """LoadGen knows no Interactive: it is Server under a model name with tighter limits."""
    return "Server" if scenario == "Interactive" else scenario

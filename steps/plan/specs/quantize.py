"""Weights in the cell's precision."""

from collections.abc import Mapping
from typing import Any

from steps.config.compression import QuantizeConfig
from steps.plan.rates import PLACE
from steps.plan.spec import UNKNOWN, Config, Cost, Facts, StepSpec, short
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS

SIMULATED = ("fp8", "int2")
"""Formats of steps/prepare/rehearsal/compress.py."""

QUARK = ("0.9", "0.13")
"""Versions of AMD Quark that are driven: AMD's own for v5.1, in containers, and that of
envs/compress.lock."""

OF_AMDS_SCRIPT = ("batch_size", "model_attn_implementation")
"""Options that steps/prepare/quantize reads for AMD's version alone."""

QUARK_S = 60.0


def limitation(config: Config) -> str | None:
    tool, wanted, options = config.get("tool"), config.get("format"), config["options"]
    if tool == "simulated":
        return None if wanted in SIMULATED else f"{wanted} can't be simulated"
    if tool == "quark":
        return _quark(options)
    return None if tool == "streaming" else f"this version can't run {tool}"


def _quark(options: Mapping[str, Any]) -> str | None:
    if options.get("version") not in QUARK:
        return f"this version runs AMD Quark {' and '.join(QUARK)}, not {options.get('version')}"
    unread = [name for name in OF_AMDS_SCRIPT if options.get(name) is not None]
    if unread and options["version"] != QUARK[0]:
        return (
            f"AMD Quark {options['version']} would not get {' and '.join(unread)}, which only "
            f"AMD's script for {QUARK[0]} takes; set it to null"
        )
    return None


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """AMD Quark's import alone takes 20 to 60 s. Calibration is two operations for each weight and
    token, on one accelerator after the other where a model is spread over several."""
    if config["tool"] == "simulated":
        return short(key, config, facts)
    rates, source_gb = facts.rates, facts.weights_gb
    if config["tool"] not in ("quark", "streaming"):
        return UNKNOWN
    if source_gb is None or facts.billions is None:
        return Cost(QUARK_S, 0.01)  # the rehearsal's
    options = config["options"]
    size = facts.billions * rates.bytes_per_weight[config["format"]]
    seconds = QUARK_S + rates.disk_s(source_gb + size)
    if config["tool"] == "streaming":
        return Cost(
            seconds, size, basis=f"read and written at {rates.disk_mb_s:g} MB/s", rough=True
        )
    algorithm = options.get("quant_algo")
    tokens = (options.get("num_calib_data") or rates.default_calibration) * options["seq_len"]
    operations = 2 * facts.billions * 1e9 * tokens * rates.algorithms.get(algorithm, 1.0)
    basis = (
        f"{tokens:,} tokens of calibration{f' with {algorithm}' if algorithm else ''} at "
        f"{rates.used:.0%} of {rates.tflops:g} TFLOPS ({PLACE})"
    )
    return Cost(seconds + rates.computing_s(operations, 1), size, basis=basis, rough=True)


SPEC = StepSpec(
    module="steps.prepare.quantize",
    says="quantize",
    config=QuantizeConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=WEIGHTS,
    needs={**WEIGHTS_NEEDS, "dataset": "dataset"},
    limitation=limitation,
    cost=cost,
)

"""LoadGen's two text files, rendered from typed values only."""

from collections.abc import Mapping

from steps.base.strict import Scenario
from steps.config.loadgen import Loadgen
from steps.mlperf.loadgen import loadgen_scenario


def render_user_conf(loadgen: Loadgen, scenario: Scenario) -> str:
    """One `model.scenario.key = value` line per setting that isn't None; times in ms."""
    settings = {
        "target_qps": loadgen.target_qps,
        "min_duration": loadgen.min_duration_ms,
        "min_query_count": loadgen.min_query_count,
        "performance_sample_count_override": loadgen.performance_sample_count_override,
    }
    prefix = f"{loadgen.model}.{loadgen_scenario(scenario)}"
    return "".join(
        f"{prefix}.{key} = {_number(value)}\n"
        for key, value in settings.items()
        if value is not None
    )


def _number(value: float) -> str:
    """A number without an exponent, which LoadGen's reader would cut off."""
    return str(int(value)) if value == int(value) else repr(value)


def render_audit_config(settings: Mapping[str, int]) -> str:
    """audit.config of a compliance test: LoadGen reads it last, for every model and scenario."""
    return "".join(f"*.*.{key} = {value}\n" for key, value in settings.items())

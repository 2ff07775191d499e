"""The verdict on a compliance test."""

from steps.config.axes import AXES
from steps.config.checks import ComplianceCheckConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.judge.compliance_check",
    says="compliance of",
    config=ComplianceCheckConfig,
    stage="verdicts",
    environment="analysis",
    place="here",
    axes=AXES,
    needs={"run": "compliance_run", "environment": "environment/analysis"},
    sources=(
        "steps/config/verdicts.py",
        "steps/mlperf/loadgen.py",
        "steps/mlperf/loadgen_log.py",
        "steps/base/untrusted.py",
        "steps/mlperf/rounds.py",
        "steps/mlperf/truncate.py",
        "steps/mlperf/accuracy_text.py",
        "steps/judge/scoring/whole.py",
        "steps/judge/compliance/*.py",
    ),
    priority=50,
)

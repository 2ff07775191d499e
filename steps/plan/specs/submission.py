"""The submission tree of an experiment."""

from steps.config.submission import SubmissionConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import CONFIDENTIAL

SPEC = StepSpec(
    module="steps.submit.submission",
    says="submission tree of",
    config=SubmissionConfig,
    stage="submission",
    environment="analysis",
    place="here",
    axes=(),
    needs={"environment": "environment/analysis"},
    sources=(
        "steps/mlperf/accuracy_text.py",
        "steps/mlperf/loadgen.py",
        "steps/mlperf/loadgen_log.py",
        "steps/base/untrusted.py",
        "steps/mlperf/rounds.py",
        "steps/mlperf/truncate.py",
        *CONFIDENTIAL,
        "steps/submit/submission/*",
        "steps/submit/validate/**/*",
        "steps/judge/compliance/lengths.py",
        "steps/judge/compliance/tokens.py",
        "conf/round/*",
    ),
)

"""The page that people read."""

from steps.config.submission import ReportConfig
from steps.plan.spec import StepSpec
from steps.plan.specs.shared import CONFIDENTIAL

SPEC = StepSpec(
    module="steps.report",
    says="report of",
    config=ReportConfig,
    stage="report",
    environment="analysis",
    place="here",
    axes=(),
    needs={
        "environment": "environment/analysis",
        "package": "submission",
        "provenance": "provenance",
    },
    sources=(
        *CONFIDENTIAL,
        "steps/report/**/*",
        "steps/report/frontier.py",
        "steps/report/claims/*",
        "steps/report/comparison/*",
        "steps/mlperf/published/*",
        "conf/tolerances.yaml",
    ),
)

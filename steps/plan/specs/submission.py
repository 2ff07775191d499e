"""The submission tree of an experiment."""

from steps.config.submission import SubmissionConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.submit.submission",
    says="submission tree of",
    config=SubmissionConfig,
    stage="submission",
    environment="analysis",
    place="here",
    axes=(),
    needs={"environment": "environment/analysis"},
    data=("conf/round/*.yaml", "steps/submit/validate/codes.yaml"),
)

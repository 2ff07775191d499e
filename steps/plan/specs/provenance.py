"""The statement of what a submission is made from."""

from steps.config.submission import ProvenanceConfig
from steps.plan.spec import StepSpec

SPEC = StepSpec(
    module="steps.submit.provenance",
    says="provenance of",
    config=ProvenanceConfig,
    stage="provenance",
    environment="driver",
    place="here",
    axes=(),
    needs={"package": "submission"},
)

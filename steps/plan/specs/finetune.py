"""Weights that were trained further."""

from steps.config.compression import FinetuneConfig
from steps.plan.rates import PLACE
from steps.plan.spec import UNKNOWN, Config, Cost, Facts, StepSpec
from steps.plan.specs.shared import WEIGHTS, WEIGHTS_NEEDS

TRAINED_PER_S = 10.0
"""Samples that the rehearsal model is fine-tuned on in a second, on one busy core."""


FORWARD_AND_BACKWARD = 6
"""Operations of a weight and a token in training: two forward and, with frozen weights
recomputed under gradient checkpointing, two and two more backward."""


def cost(key: str, config: Config, facts: Facts) -> Cost:
    """At most: every sample as long as the cutoff."""
    if config["data"]["kind"] == "notes":
        return Cost(config["data"]["training_samples"] / TRAINED_PER_S, 0.01)
    size, steps = facts.weights_gb, config["checkpoint_step"]
    if size is None or facts.billions is None or steps is None:
        return UNKNOWN
    batch = config["per_device_train_batch_size"] * config["gradient_accumulation_steps"]
    tokens = steps * batch * config["processes"] * config["cutoff_len"]
    operations = FORWARD_AND_BACKWARD * facts.billions * 1e9 * tokens
    rates = facts.rates
    seconds = rates.computing_s(operations, config["processes"]) + 2 * rates.disk_s(size)
    basis = (
        f"{steps} steps of {batch * config['processes']} samples of {config['cutoff_len']:,} "
        f"tokens, at {rates.used:.0%} of {config['processes']} × {rates.tflops:g} TFLOPS ({PLACE})"
    )
    return Cost(seconds, size, basis=basis, rough=True)


SPEC = StepSpec(
    module="steps.prepare.finetune",
    says="fine-tune",
    config=FinetuneConfig,
    stage="artifacts",
    environment="prepare",
    place="nodes",
    axes=WEIGHTS,
    needs={**WEIGHTS_NEEDS, "sets": "training_sets"},
    cost=cost,
)

"""One process of a training: `python -m steps.prepare.finetune.child JOB`, or more by torchrun."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from steps.base.errors import UserError
from steps.config.compression import FinetuneConfig
from steps.prepare.checkpoint.config_forms import dtype_keyword, refuse_misread
from steps.prepare.finetune.data import IGNORED, TRAINING, VALIDATION
from steps.prepare.finetune.model import Event, Job

ADAPTERS = "adapters"
THREADS = 1
"""Threads of a training without an accelerator; another number gives other weights."""


def tell(event: Event) -> None:
    print(f"{Event.MARK}{event.model_dump_json()}", flush=True)


def run(job: Job) -> None:
    training, state = job.training, Path(job.state)
    accelerated = torch.cuda.is_available()
    if not accelerated:
        torch.set_num_threads(THREADS)
    samples = {name: _samples(state / name) for name in (TRAINING, VALIDATION)}
    arguments = _arguments(training, state, len(samples[TRAINING]), accelerated)
    refuse_misread(Path(job.model), transformers.__version__)
    # Made before the model is: DeepSpeed splits the weights as they are read.
    model = AutoModelForCausalLM.from_pretrained(
        job.model,
        local_files_only=True,
        **{dtype_keyword(transformers.__version__): getattr(torch, training.dtype)},
    )
    trainer = Trainer(
        model=_adapted(model, training),
        args=arguments,
        train_dataset=samples[TRAINING],
        eval_dataset=samples[VALIDATION],
        data_collator=_batch,
        callbacks=[Reporting(training.checkpoint_step)],
    )
    done = trainer.train(resume_from_checkpoint=last_checkpoint(state))
    measured = {
        "steps": float(trainer.state.global_step),
        "training_samples": float(len(samples[TRAINING])),
        "training_loss": float(done.training_loss),
        "validation_loss": float(trainer.evaluate()["eval_loss"]),
    }
    adapters = state / ADAPTERS
    trainer.save_model(str(adapters))
    if trainer.is_world_process_zero():
        tell(
            Event(
                step=trainer.state.global_step,
                steps=trainer.state.max_steps,
                adapters=str(adapters),
                measured=measured,
                versions=_versions(),
            )
        )
    if torch.distributed.is_initialized():
        # Else whoever ends first takes its connections' threads along, and may be aborted: a
        # training that is done would count as failed.
        trainer.accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def _arguments(
    training: FinetuneConfig, state: Path, samples: int, accelerated: bool
) -> TrainingArguments:
    batch = (
        training.per_device_train_batch_size
        * training.gradient_accumulation_steps
        * training.processes
    )
    steps = math.ceil(samples / batch) * training.epochs
    stage = training.deepspeed_zero_stage
    return TrainingArguments(
        output_dir=str(state),
        seed=training.seed,
        data_seed=training.seed,
        full_determinism=not accelerated,
        num_train_epochs=training.epochs,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=math.ceil(steps * training.warmup_ratio),
        max_grad_norm=training.max_grad_norm,
        per_device_train_batch_size=training.per_device_train_batch_size,
        per_device_eval_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        gradient_checkpointing=training.gradient_checkpointing,
        bf16=training.dtype == "bfloat16",
        use_cpu=not accelerated,
        deepspeed=_zero(stage) if stage else None,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
    )


def _zero(stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration; "auto" takes the Trainer's setting."""
    return {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "zero_optimization": {
            "stage": stage,
            "stage3_gather_16bit_weights_on_model_save": stage == 3,
        },
    }


def _adapted(model: PreTrainedModel, training: FinetuneConfig) -> Any:
    if training.gradient_checkpointing:
        model.enable_input_require_grads()
    torch.manual_seed(training.seed)  # of the adapters' first factors
    settings = peft.LoraConfig(
        r=training.lora.rank,
        lora_alpha=training.lora.alpha,
        target_modules=_adapted_modules(model),
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, settings)


def _adapted_modules(model: PreTrainedModel) -> str | list[str]:
    """Every linear layer but the head; in a mixture of experts only those of attention.

    transformers holds all experts of a layer in one tensor, in another order than checkpoints do.
    """
    if getattr(model.config, "num_local_experts", None):
        return ["q_proj", "k_proj", "v_proj", "o_proj"]
    return "all-linear"


def _samples(path: Path) -> list[dict[str, list[int]]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _batch(samples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """[n, longest]. The mask keeps padding away from a mixture's router."""
    inputs = [sample["input_ids"] for sample in samples]
    return {
        "input_ids": _padded(inputs, 0),
        "labels": _padded([sample["labels"] for sample in samples], IGNORED),
        "attention_mask": _padded([[1] * len(ids) for ids in inputs], 0),
    }


def _padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


class Reporting(TrainerCallback):
    """Reports every step; ends at the last one wanted, and at a loss that isn't finite."""

    def __init__(self, end: int | None) -> None:
        self.end = end

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(state)
        if self.end is not None and state.global_step >= self.end:
            control.should_training_stop = True

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._tell(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"the loss of step {state.global_step} is {loss}; lower "
                "compression.finetune.learning_rate"
            )

    def _tell(self, state: Any) -> None:
        if state.is_world_process_zero:
            steps = min(state.max_steps, self.end or state.max_steps)
            tell(Event(step=state.global_step, steps=steps))


def last_checkpoint(state: Path) -> str | None:
    """The newest complete checkpoint: the Trainer's state is written last."""
    found = {}
    for path in state.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
            found[int(path.name.removeprefix("checkpoint-"))] = path
        except (OSError, ValueError):
            continue
    return str(found[max(found)]) if found else None


def _versions() -> dict[str, str]:
    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }


def main() -> None:
    job = Job.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    try:
        run(job)
    except UserError as error:
        tell(Event(error=str(error)))
        raise SystemExit(1) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        tell(
            Event(
                error=f"not enough memory ({str(error).splitlines()[0]}); lower compression."
                "finetune.per_device_train_batch_size or cutoff_len, set gradient_checkpointing, "
                "or split the model with deepspeed_zero_stage=3"
            )
        )
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()

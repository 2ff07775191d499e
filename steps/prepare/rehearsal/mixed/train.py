"""The recipe of the mixed rehearsal's dense model: `python -m steps.prepare.rehearsal.mixed.train
--output DIR`.

It goes on from the rehearsal's shipped weights, which copy facts already, with words for numbers
and programs added. Deterministic on one machine and one set of versions.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from steps.base.record import sha256_file
from steps.prepare.checkpoint.layout import SINGLE
from steps.prepare.rehearsal import train as dense
from steps.prepare.rehearsal.mixed import dataset
from steps.prepare.rehearsal.mixed.tasks import VOCABULARY
from steps.prepare.rehearsal.recipes import output_of
from steps.prepare.rehearsal.train import Phase, Recipe, Sample, Training

SOURCE = Path(dense.__file__).parent / "model"

MIXED = Recipe(
    seed=7,
    phases=(Phase(300_000, (1, 6)), Phase(1_200_000)),
    adam_rate=2e-3,
    muon_rate=0.005,
    decay_share=0.6,
)


def stream(seed: int, phase: Phase) -> Iterator[Sample]:
    return dataset.training(seed, phase.facts)


def started(recipe: Recipe) -> LlamaForCausalLM:
    """The shipped weights; embeddings of added words are drawn like those that are there."""
    torch.manual_seed(recipe.seed)
    source = LlamaForCausalLM.from_pretrained(SOURCE, dtype=torch.float32)
    model = LlamaForCausalLM(dense.configuration(vocabulary=VOCABULARY))
    weights = source.state_dict()
    known = weights["model.embed_tokens.weight"]
    added = len(VOCABULARY.tokens) - len(known)
    drawn = known.mean(0) + known.std(0) * torch.randn(added, known.shape[1])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = torch.cat([known, drawn])
    model.load_state_dict(weights)
    return model


def main() -> None:
    training = Training(
        recipe=MIXED,
        start=lambda: started(MIXED),
        stream=stream,
        vocabulary=VOCABULARY,
        origin={"source_sha256": sha256_file(SOURCE / SINGLE)},
    )
    dense.run(output_of("steps.prepare.rehearsal.mixed.train"), training)


if __name__ == "__main__":
    main()

"""`python -m bench.company --weights DIR`: whether Mixtral's answers depend on what else is asked.

DIR is the artifact of the step upcycle. The first prompts of rehearsal-mixtral are answered as its
accuracy run answers them, again, in other orders, and with other numbers of prompts at once. Prints
for each how many answers are others, token for token, and each metric in percent of the first's
[95 % interval, paired bootstrap].
"""

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench import mixture
from steps import ROOT
from steps.plan.frozen import frozen_plan
from steps.plan.plan import load
from steps.prepare.rehearsal.mixed import dataset


@dataclass(frozen=True)
class Way:
    """One way to ask. `seed`: of the order of the prompts, which are in the dataset's without one.
    `arguments`: of the engine, in place of its own.
    """

    name: str
    seed: int | None = None
    arguments: dict[str, int] = field(default_factory=dict)


WAYS = (
    Way("as configured"),
    Way("again"),
    Way("shuffled", seed=1),
    Way("shuffled otherwise", seed=2),
    Way("1 at once", arguments={"max_num_seqs": 1}),
    Way("16 at once", arguments={"max_num_seqs": 16}),
    Way("16 at once, shuffled", seed=1, arguments={"max_num_seqs": 16}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    plan = load(frozen_plan(ROOT, ["experiment=rehearsal-mixtral", "scenario=Offline"]))
    frame = dataset.evaluation(options.samples)
    usual: list[list[int]] = []
    ran: mixture.Ran = {}
    reference: mixture.Found | None = None
    for way in WAYS:
        order = np.arange(len(frame))
        if way.seed is not None:
            np.random.default_rng(way.seed).shuffle(order)
        asked = frame.iloc[order]
        stops = [list(map(int, stop)) for stop in asked["tok_stop_sequence"]]
        with tempfile.TemporaryDirectory() as home:
            given = mixture.answers(
                plan, "bf16", options.weights, asked, stops, Path(home), way.arguments
            )
        found = [given[at] for at in np.argsort(order)]
        usual = usual or found
        other = sum(one != answer for one, answer in zip(found, usual, strict=True))
        scores = mixture.scored(frame, found, ran)
        reference = reference or scores
        cells = (way.name, str(other), *mixture.shown(scores, reference, mixture.gate(plan)))
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

"""What an engine of ours answers when it is asked outside of a run."""

from collections.abc import Sequence
from typing import Any


def answered(
    engine: Any, prompts: Sequence[list[int]], stops: Sequence[list[int]] = ()
) -> list[list[int]]:
    """Token ids of each prompt's answer, in order. `stops`: a stop sequence for each prompt."""
    from steps.run.engines.engine import asked  # which only an engine's environment imports

    numbers = range(len(prompts))
    engine.submit(asked(numbers, numbers, prompts, stops))
    whole: dict[int, list[int]] = {}
    while len(whole) < len(prompts):
        whole.update((number, tokens.tolist()) for number, tokens in engine.step().completed)
    return [whole[number] for number in numbers]

"""How many tokens of calibration reached each expert of a mixture."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from steps.base.errors import UserError

_ONE = re.compile(r"\.experts\.\d+$")


class Reached:
    """Counts from now on, for as long as the model lives. `tokens`: by the name of each expert's
    module; empty for a model that isn't a mixture.

    An expert that is called by itself is counted there (transformers 4, Quark 0.9). Quark 0.13
    calls the parts of experts from the module that holds them all, which is given each token's
    choice.
    """

    def __init__(self, model: Any) -> None:
        self.tokens: Counter[str] = Counter()
        for name, module in model.named_modules():
            if name.endswith(".experts") and hasattr(module, "num_experts"):
                self.tokens.update({f"{name}.{number}": 0 for number in range(module.num_experts)})
                module.register_forward_pre_hook(partial(self._chosen, name))
            elif _ONE.search(name):
                self.tokens.update({name: 0})
                module.register_forward_pre_hook(partial(self._called, name))

    def refuse_cold(self, source: Path, named: Callable[[str], str] = lambda name: name) -> None:
        """UserError naming the first expert that no token reached; `named`: as in checkpoints."""
        cold = [name for name, tokens in self.tokens.items() if not tokens]
        if cold:
            raise UserError(
                f"no calibration prompt reached {len(cold)} of {len(self.tokens)} experts of "
                f"{source}, the first of them {named(cold[0])}: its input scale would be Quark's "
                "1, which engines take for all of its layer; raise num_calib_data and quantize "
                "again"
            )

    def described(self) -> dict[str, int]:
        """For the record; empty for a model that isn't a mixture."""
        if not self.tokens:
            return {}
        return {
            "experts": len(self.tokens),
            "fewest_tokens_of_an_expert": min(self.tokens.values()),
        }

    def _chosen(self, name: str, module: Any, given: tuple[Any, ...]) -> None:
        """`given`: hidden states, and the experts of each token."""
        chosen = Counter(given[1].flatten().tolist())
        self.tokens.update({f"{name}.{number}": count for number, count in chosen.items()})

    def _called(self, name: str, module: Any, given: tuple[Any, ...]) -> None:
        """`given`: the hidden states of its tokens."""
        self.tokens[name] += len(given[0])

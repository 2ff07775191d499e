"""The result of every step that makes weights."""

from pydantic import JsonValue

from steps.base.record import canonical_json
from steps.base.strict import Positive
from steps.config.results import Result


class Importance(Result):
    """How much layers matter, measured on so many calibration prompts: by layer, and for every
    block of layers by its first one and the one behind it."""

    samples: Positive
    ffn_output: tuple[float, ...]
    angular_distance: tuple[tuple[float, ...], ...]


class WeightsResult(Result):
    """A step that changes weights hands on what was said of them before.

    `simulated`: numbers of another precision in tensors of bfloat16. `fetched_from`: the hub that
    was asked, `revision` what of. `format`, `repository`: of weights that were fetched quantized;
    `format` also of those that were quantized here. `recipe`: of the embedded ones. `calibrated`,
    `finetuned`: as their tools describe it. `dropped_layers`: first and last of the pruned block.
    `experts`: of a mixture that was made of dense weights.
    """

    name: str
    simulated: bool = False
    fetched_from: str | None = None
    revision: str | None = None
    format: str | None = None
    repository: str | None = None
    recipe: dict[str, JsonValue] | None = None
    calibrated: dict[str, JsonValue] | None = None
    finetuned: dict[str, JsonValue] | None = None
    importance: Importance | None = None
    dropped_layers: tuple[int, int] | None = None
    experts: Positive | None = None

    def but(self, **said: object) -> "WeightsResult":
        """The same with what another step says of them."""
        return WeightsResult.model_validate_json(canonical_json(self.dumped() | said))

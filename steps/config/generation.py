"""What an engine generates: tokens, or a picture."""

from steps.base.strict import Positive, PositiveNumber, Strict


class Generation(Strict):
    """How long an answer is, and what ends it; counts include the token or sequence that does.

    `eos_token_id`: the end-of-sequence token, or several, as generation_config.json has them.
    `stop_sequences`: each sample has a sequence of tokens of its own that ends its answer too, in
    the dataset's column tok_stop_sequence; the answer ends with it, as MLCommons' reference of
    Mixtral cuts it.
    """

    min_tokens: Positive
    max_tokens: Positive
    eos_token_id: int | tuple[int, ...]
    stop_sequences: bool = False

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends an answer."""
        return self.eos_token_id if isinstance(self.eos_token_id, tuple) else (self.eos_token_id,)


class ImageGeneration(Strict):
    """Text to image; `size` is the side of the square image in pixels."""

    steps: Positive
    guidance_scale: PositiveNumber
    size: Positive

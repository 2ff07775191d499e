"""What an engine generates: tokens, or a picture."""

from typing import ClassVar

from pydantic import model_validator
from typing_extensions import Self

from steps.base.strict import Positive, PositiveNumber, Strict

WORD_BYTES = 4
"""Answers travel to LoadGen as 32-bit words: a token each, or four bytes of a picture."""

CHANNELS = 3
"""Bytes of a pixel: red, green, blue."""


class Generation(Strict):
    """How long an answer is, and what ends it; counts include the token or sequence that does.

    `min_tokens`: before these no token ends an answer. `max_tokens`: an answer is cut there.
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

    @property
    def words(self) -> tuple[int, int]:
        """The fewest and the most words of an answer."""
        return self.min_tokens, self.max_tokens


class ImageGeneration(Strict):
    """Text to image. An answer is the picture's bytes, row by row, three for each pixel, as
    MLCommons' reference gives them to LoadGen.

    `steps`: of denoising. `guidance_scale`: how much the caption counts. `negative_prompt`: what
    the picture shouldn't be. `size`: the side of the square picture in pixels.
    """

    stop_sequences: ClassVar[bool] = False

    steps: Positive
    guidance_scale: PositiveNumber
    size: Positive
    negative_prompt: str

    @model_validator(mode="after")
    def bytes_fill_words(self) -> Self:
        if self.size % 2:
            raise ValueError(f"a side of {self.size} pixels is odd; choose an even one")
        return self

    @property
    def bytes(self) -> int:
        """How many a picture has."""
        return CHANNELS * self.size * self.size

    @property
    def words(self) -> tuple[int, int]:
        """The fewest and the most words of an answer: every picture has as many."""
        return self.bytes // WORD_BYTES, self.bytes // WORD_BYTES

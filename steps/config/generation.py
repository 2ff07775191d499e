"""What an engine generates: tokens, or a picture."""

from steps.base.strict import Positive, PositiveNumber, Strict


class Generation(Strict):
    """Greedy decoding; token counts include the end-of-sequence token."""

    min_tokens: Positive
    max_tokens: Positive
    eos_token_id: int


class ImageGeneration(Strict):
    """Text to image; `size` is the side of the square image in pixels."""

    steps: Positive
    guidance_scale: PositiveNumber
    size: Positive

"""The files that score a benchmark's pictures, as its configuration and its dataset name them."""

from steps import ROOT
from steps.base.errors import UserError
from steps.base.record import Manifest
from steps.config.checks import ImageWeights
from steps.judge.scoring.images import Files

CAPTIONS, STATISTICS = "captions_source.tsv", "val2014.npz"
"""MLCommons' names."""


def files(weights: ImageWeights | None, dataset: Manifest) -> Files:
    """Raises UserError for networks that the configuration doesn't name."""
    if weights is None or weights.clip.path is None or weights.inception.path is None:
        raise UserError(
            "pictures are scored with CLIP and Inception-v3, whose weights have to be on this "
            "machine: set benchmark.scorer_weights.clip.path and .inception.path"
        )
    shipped = weights.statistics
    known = None if shipped is None or shipped.path is None else ROOT / shipped.path
    return Files(
        captions=dataset.file(CAPTIONS),
        statistics=dataset.file(STATISTICS) if known is None else known,
        clip=ROOT / weights.clip.path,
        inception=ROOT / weights.inception.path,
        digests={
            "clip": weights.clip.sha256,
            "inception": weights.inception.sha256,
            "statistics": None if shipped is None else shipped.sha256,
        },
        side=weights.side_pixels,
    )

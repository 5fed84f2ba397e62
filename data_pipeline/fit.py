"""How an example that is larger than any row is made to fit: smaller images, or less of its text.

Pure functions of an example's words, its images' sizes and the rows' limits. Which of the two is done, and what is told
of it, is `measure`'s.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from data_pipeline.packing import as_array, bucket_of
from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size
from vlm_jax.processing.processor import Grid, Processor, Text

Limits = Int[np.ndarray, "buckets columns"]
"""The lengths of a row of each bucket (`Size.columns`)."""


def with_smaller_images(
    processor: Processor, text: Text, image_sizes: Sequence[tuple[int, int]], limits: Limits
) -> tuple[Size, int] | None:
    """The size with the largest images that fit, and how many visual tokens each then has at most.

    Args:
      image_sizes: (width, height) in pixels.

    Returns:
      None where not even the smallest images fit.
    """
    low, high = processor.images.token_range
    best = None
    while low <= high:
        budget = (low + high) // 2
        size = processor.size(text, grids(processor, image_sizes, budget))
        if bucket_of(as_array([size]), limits)[0] >= 0:
            best, low = (size, budget), budget + 1
        else:
            high = budget - 1
    return best


def with_less_text(
    processor: Processor, text: Text, image_grids: Sequence[Grid], limits: Limits, most: int
) -> tuple[Size, int] | None:
    """The size with as much of the text as fits, and how many tokens that is.

    Args:
      most: tokens that are of use at most: of a longer text, where it is cut in any case.

    Returns:
      None where a cut would go through an image, or leave nothing to learn.
    """
    low, high, best = 1, most, None
    while low <= high:
        longest = (low + high) // 2
        try:
            size = processor.size(text, image_grids, longest=longest)
        except InputError:
            low = longest + 1
            continue
        if bucket_of(as_array([size]), limits)[0] >= 0:
            best, low = (size, longest), longest + 1
        else:
            high = longest - 1
    return best


def grids(processor: Processor, image_sizes: Sequence[tuple[int, int]], budget: int = 0) -> list[Grid]:
    """How images of these sizes are cut, with at most `budget` visual tokens each; 0: the processor's own."""
    if budget:
        least = min(budget, processor.images.token_range[0])
        processor = processor.with_token_range((max(1, least), budget))
    return [processor.grid(*size) for size in image_sizes]

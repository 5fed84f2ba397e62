"""How many of an image's visual tokens the decoder sees. Counted on the host, so that rows are packed at that length.

Which tokens they are, `vlm_jax.models.token_reduction` chooses; with `resize` the image itself is made smaller.
"""

import dataclasses
import difflib
import numbers
import zlib

import numpy as np
from jaxtyping import Int, UInt8

from vlm_jax.errors import InputError
from vlm_jax.processing.pooling import Blocks, blocks
from vlm_jax.processing.vision_layout import VisionLayout

RESIZE, CDPRUNER, POOL_LEARNED = "resize", "cdpruner", "pool_learned"
POOLS = ("pool", POOL_LEARNED)
METHODS = (RESIZE, "random", "uniform", *POOLS, "divprune", "mmr", "mmr_learned", CDPRUNER, "visionzip")
"""Ways to come to fewer tokens, by name."""
LEARNED = ("mmr_learned", POOL_LEARNED)
"""Those that have parameters."""


@dataclasses.dataclass(frozen=True)
class TokenBudget:
    """What stays of an image, and how.

    Attributes:
      visual_tokens: a share of the image's tokens (a float, 0 < share ≤ 1) or a number of them (an int).
      method: of `METHODS`.
      seed: of `random`.
    """

    visual_tokens: float | int = 1.0
    method: str = RESIZE
    seed: int = 0

    def __post_init__(self):
        if errors := budget_errors(self.visual_tokens, self.method):
            raise InputError(errors)

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return self.visual_tokens == 1 and isinstance(self.visual_tokens, float)

    @property
    def chooses(self) -> bool:
        """Whether some tokens of an image are left out behind the tower: by any method but `resize`."""
        return not self.takes_all and self.method != RESIZE

    @property
    def on_device(self) -> bool:
        """Whether tokens are chosen, or merged, when the tower has made something of them."""
        return self.chooses and self.method not in ("random", "uniform")

    def count(self, tokens: int) -> int:
        """How many of an image's tokens stay: a share is rounded, halves up; one at least, all at most."""
        if isinstance(self.visual_tokens, float):
            return min(tokens, max(1, int(self.visual_tokens * tokens + 0.5)))
        return min(tokens, self.visual_tokens)


def budget_errors(visual_tokens, method, *, names: tuple[str, str] = ("visual_tokens", "token_reduction")) -> list[str]:
    """What of the two settings cannot be, a line each.

    Args:
      names: that they are called by.
    """
    errors = []
    number = isinstance(visual_tokens, numbers.Real) and not isinstance(visual_tokens, bool)
    if not number or (not 0 < visual_tokens <= 1 if isinstance(visual_tokens, float) else visual_tokens < 1):
        errors.append(
            f"{names[0]} is {visual_tokens!r}; wanted a share above 0 and up to 1.0, or a whole number of tokens an "
            "image from 1"
        )
    if method not in METHODS:
        near = difflib.get_close_matches(str(method), METHODS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        errors.append(f"{names[1]} {method!r}: known are {', '.join(METHODS)}{hint}")
    return errors


ALL_TOKENS = TokenBudget()


def of_settings(visual_tokens: float, token_reduction: str, seed: int) -> TokenBudget:
    """As the settings of a run say it, where every number is a float: a whole one above 1 is a number of tokens."""
    return TokenBudget(visual_tokens if visual_tokens <= 1 else int(visual_tokens), token_reduction, seed)


def uniform(count: int, keep: int) -> Int[np.ndarray, " keep"]:
    """An even stride over tokens in reading order."""
    return np.arange(keep) * count // keep


def random(count: int, keep: int, seed: int, *more: int) -> Int[np.ndarray, " keep"]:
    """A sample without repetition, ascending, that follows from the seed (several numbers, if need be) alone."""
    return np.sort(np.random.default_rng((seed, *more)).permutation(count)[:keep])


def stays(
    budget: TokenBudget, layout: VisionLayout, patches: UInt8[np.ndarray, "units patches_per_token values"]
) -> Int[np.ndarray, " kept"]:
    """Which of an image's tokens stay, ascending. Where the device chooses, as many: it puts others in their place.

    Class tokens and the ends of rows always do.
    """
    if budget.method in POOLS:
        return np.flatnonzero(~layout.optional | blocks_of(budget, layout).centre)
    optional = np.flatnonzero(layout.optional)
    keep = budget.count(len(optional))
    if budget.method == "random":  # another sample for another image, the same whenever and wherever it is read
        chosen = random(len(optional), keep, budget.seed, zlib.crc32(np.ascontiguousarray(patches)))
    else:
        chosen = uniform(len(optional), keep)
    kept = ~layout.optional
    kept[optional[chosen]] = True
    return np.flatnonzero(kept)


def blocks_of(budget: TokenBudget, layout: VisionLayout) -> Blocks:
    """`pooling.blocks` of an image, as many as the budget has it."""
    return blocks(layout, budget.count(int(layout.optional.sum())))


def kept_count(budget: TokenBudget, layout: VisionLayout) -> int:
    """How many of an image's tokens stay, where some are left out behind the tower."""
    whole = int((~layout.optional).sum())
    if budget.method in POOLS:
        return whole + int(blocks_of(budget, layout).centre.sum())
    return whole + budget.count(len(layout.optional) - whole)

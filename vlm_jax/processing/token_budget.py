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

RESIZE, CDPRUNER, POOL_LEARNED, FASTV = "resize", "cdpruner", "pool_learned", "fastv"
POOLS = ("pool", POOL_LEARNED)
CUTS = {FASTV: 1, "pyramiddrop": 3}
"""Methods that leave tokens out within the decoder, and behind how many of its layers."""
METHODS = (RESIZE, "random", "uniform", *POOLS, "divprune", "mmr", "mmr_learned", CDPRUNER, "visionzip", *CUTS)
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
      layer: of `fastv`, how many layers of the decoder see all tokens; 0: as many as its authors have (`cut_layers`).
    """

    visual_tokens: float | int = 1.0
    method: str = RESIZE
    seed: int = 0
    layer: int = 0

    def __post_init__(self):
        if errors := budget_errors(self.visual_tokens, self.method, self.layer):
            raise InputError(errors)

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return self.visual_tokens == 1 and isinstance(self.visual_tokens, float)

    @property
    def chooses(self) -> bool:
        """Whether some tokens of an image are left out between the tower and the decoder."""
        return not self.takes_all and self.method != RESIZE and self.method not in CUTS

    @property
    def on_device(self) -> bool:
        """Whether tokens are chosen, or merged, when the tower has made something of them."""
        return self.chooses and self.method not in ("random", "uniform")

    @property
    def cuts(self) -> int:
        """Behind how many layers of the decoder some tokens are left out."""
        return 0 if self.takes_all else CUTS.get(self.method, 0)

    @property
    def by_question(self) -> bool:
        """Whether what stays of an image follows from what is asked about it."""
        return bool(self.cuts) or (self.chooses and self.method == CDPRUNER)

    def count(self, tokens: int) -> int:
        """How many of an image's tokens stay: a share is rounded, halves up; one at least, all at most."""
        if isinstance(self.visual_tokens, float):
            return min(tokens, max(1, int(self.visual_tokens * tokens + 0.5 + 1e-9)))
        return min(tokens, self.visual_tokens)

    def counts_above(self, tokens: int) -> tuple[int, ...]:
        """How many of an image's tokens stay above each cut within the decoder: with several, in equal ratios down to
        `count`. An eighth, for instance, by a half, a quarter, an eighth."""
        last, cuts = self.count(tokens), CUTS.get(self.method, 0)
        if isinstance(self.visual_tokens, float) and not self.takes_all:
            ratio = self.visual_tokens
        else:
            ratio = last / max(tokens, 1)
        between = (max(last, int(ratio ** (cut / cuts) * tokens + 0.5 + 1e-9)) for cut in range(1, cuts))
        return (*between, last) if cuts else ()


NAMES = ("visual_tokens", "token_reduction", "token_reduction_layer")


def budget_errors(visual_tokens, method, layer=0, *, names: tuple[str, str, str] = NAMES) -> list[str]:
    """What of the settings cannot be, a line each.

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
    if not isinstance(layer, numbers.Integral) or isinstance(layer, bool) or layer < 0:
        errors.append(f"{names[2]} is {layer!r}; wanted a layer of the decoder, from 1, or 0 for the method's own")
    elif layer and method in METHODS and method != FASTV:
        errors.append(f"{names[2]} is {layer}, which goes with {FASTV}, and {names[1]} is {method}; take 0")
    return errors


ALL_TOKENS = TokenBudget()


def of_settings(model, seed: int, visual_tokens: float | None = None) -> TokenBudget:
    """As the settings of a run say it, where every number is a float: a whole one above 1 is a number of tokens.

    Args:
      model: the group of settings.
      visual_tokens: instead of its own.
    """
    tokens = model.visual_tokens if visual_tokens is None else visual_tokens
    tokens = tokens if tokens <= 1 else int(tokens)
    return TokenBudget(tokens, model.token_reduction, seed, model.token_reduction_layer)


FASTV_LAYER = 2
"""Behind which `fastv` leaves tokens out, as published (arXiv:2403.06764)."""


def cut_layers(method: str, layer: int, depth: int) -> tuple[int, ...]:
    """How many layers of a decoder of `depth` run before each cut; none of a method that cuts elsewhere.

    Raises:
      InputError: no such layer, or none above it.
    """
    if method == FASTV:
        layer = layer or FASTV_LAYER
        if not 0 < layer < depth:
            raise InputError(
                f"token_reduction_layer is {layer}, and the decoder has {depth} layers, of which at least one must "
                f"follow it; take 1 to {depth - 1}"
            )
        return (layer,)
    cuts = CUTS.get(method, 0)
    if cuts and depth <= cuts:
        raise InputError(
            f"token_reduction {method} leaves tokens out behind a quarter, a half and three quarters of the decoder, "
            f"which has {depth} layers; take {FASTV}, or a decoder of 4 layers or more"
        )
    return tuple(depth * cut // (cuts + 1) for cut in range(1, cuts + 1))


def uniform(count: int, keep: int) -> Int[np.ndarray, " keep"]:
    """An even stride over tokens in reading order."""
    return np.arange(keep) * count // keep


def random(count: int, keep: int, seed: int, *more: int) -> Int[np.ndarray, " keep"]:
    """A sample without repetition, ascending, that follows from the seed (several numbers, if need be) alone."""
    return np.sort(np.random.default_rng((seed, *more)).permutation(count)[:keep])


def stays(
    budget: TokenBudget, layout: VisionLayout, patches: UInt8[np.ndarray, "tokens patches_per_token values"]
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

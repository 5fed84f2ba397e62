"""Which split a pair belongs to: by a hash of what is held out, so that more pairs move none of those that are there.

Whether anything of one split is in another is `leakage`'s.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_pipeline.corpus.filters.pair import Pair, text_hash
from data_pipeline.corpus.filters.registry import nearest
from vlm_jax.errors import InputError

HELD_OUT = ("topic", "fact_id", "image", "id")
"""What may be held out as a whole: no two splits have one of them in common."""


def split_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a topic, a fact, an image or an id: where its hash, between 0 and 1, falls among the shares."""
    place = text_hash(f"{seed}/{key}") / 2**64
    reached = 0.0
    for split, share in shares.items():
        reached += share
        if place < reached and share:
            return split
    return next(split for split in reversed(shares) if shares[split])  # shares add up to 1 but for rounding


def assign(pairs: Sequence[Pair], shares: Mapping[str, float], *, held_out: str = "topic", seed: int = 0) -> list[Pair]:
    """The pairs with their splits.

    Args:
      shares: {split: its share}; they add up to 1.
      held_out: one of HELD_OUT. "id" puts single pairs into splits, whatever they have in common.

    Raises:
      InputError: shares that do not add up; pairs without what is held out; a split that no pair falls into.
    """
    errors = []
    if held_out not in HELD_OUT:
        errors.append(f"splits.held_out is {held_out!r}; {nearest(held_out, HELD_OUT)}")
    if not shares or any(not 0 <= share <= 1 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        errors.append(f"splits.shares are {dict(shares)!r}; wanted shares between 0 and 1 that add up to 1")
    if not errors and (bare := [pair.id for pair in pairs if not getattr(pair, held_out)]):
        errors.append(f"splits: {len(bare):,} pairs have no {held_out}, which is held out; first {bare[0]!r}")
    if errors:
        raise InputError(errors)
    found = [replace(pair, split=split_of(getattr(pair, held_out), shares, seed)) for pair in pairs]
    counts = Counter(pair.split for pair in found)
    if empty := [split for split, share in shares.items() if share and not counts[split]]:
        keys = len({getattr(pair, held_out) for pair in pairs})
        raise InputError(
            f"splits: nothing falls into {', '.join(empty)}; there are {keys:,} of {held_out}: raise the share, or "
            "take another seed"
        )
    return found

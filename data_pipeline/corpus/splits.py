"""Which split something belongs to: by a hash of it, so that more of its kind move none of those that are there.

Whether anything of one split is in another is `leakage`'s.
"""

from collections.abc import Mapping

from data_pipeline.corpus.filters.pair import text_hash


def split_of(key: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a topic, a fact, an image or an id: where its hash, between 0 and 1, falls among the shares."""
    place = text_hash(f"{seed}/{key}") / 2**64
    reached = 0.0
    for split, share in shares.items():
        reached += share
        if place < reached and share:
            return split
    return next(split for split in reversed(shares) if shares[split])  # shares add up to 1 but for rounding

"""How often the passage that answers a question is among those that were found for it."""

from collections.abc import Collection, Sequence

import numpy as np

from vlm_jax.errors import InputError


def recall_at(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]], k: int) -> float:
    """Mean over questions of the share of its gold passages that are among the first k found for it.

    Args:
      found: ids for each question, the best first, each id once.
      gold: ids for each question, at least one.

    Raises:
      InputError: as many of one as of the other are not there, k is below 1, or a question has no gold passage.
    """
    if len(found) != len(gold) or not found:
        raise InputError(f"recall of {len(found)} orders of passages against {len(gold)} questions")
    if k < 1 or not all(gold):
        raise InputError(f"recall at {k} wants k from 1, and a gold passage of every question")
    shares = [len({*ids[:k]} & {*wanted}) / len({*wanted}) for ids, wanted in zip(found, gold, strict=True)]
    return float(np.mean(shares))


def reciprocal_rank(found: Sequence[Sequence[str]], gold: Sequence[Collection[str]]) -> float:
    """Mean over questions of 1 / rank of the first gold passage found; 0 where none was (MRR, Voorhees 1999)."""
    recall_at(found, gold, 1)
    pairs = zip(found, gold, strict=True)
    ranks = [next((rank for rank, id in enumerate(ids, 1) if id in wanted), 0) for ids, wanted in pairs]
    return float(np.mean([1 / rank if rank else 0.0 for rank in ranks]))


def oracle(found: Sequence[str], gold: Sequence[str], k: int) -> list[str]:
    """What a search that misses nothing would have found: the gold passages, then the others in their order, k of them.

    Never fewer than the gold passages.
    """
    others = [id for id in found if id not in gold]
    return [*gold, *others][: max(k, len(gold))]

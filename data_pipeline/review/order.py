"""Which records are shown, in what order, and which of them to two reviewers. The same seed always says the same."""

import hashlib
from collections.abc import Iterable

from data_pipeline.review.corpus import Item


def ordered(items: Iterable[Item], *, sample: int, seed: int, blind: bool) -> list[Item]:
    """Doubtful records first, then a sample of the others, balanced by stratum.

    The sample is systematic: every beginning of it holds about the share of each stratum that the corpus has, and every
    record is as likely to be in it as any other, so that shares of it are unbiased estimates. A smaller sample is the
    beginning of a larger one.

    Args:
      sample: so many records that no filter doubts; 0: all of them. Doubtful ones are all shown.
      blind: the same records, in an order that says nothing of doubts.
    """
    doubtful = sorted((item for item in items if item.flags), key=lambda item: _draw(seed, "doubtful", item.record.id))
    others = _balanced([item for item in items if not item.flags], seed)
    shown = [*doubtful, *(others[:sample] if sample else others)]
    if blind:
        shown.sort(key=lambda item: _draw(seed, "blind", item.record.id))
    return shown


def shared_keys(items: Iterable[Item], share: float, seed: int) -> frozenset[str]:
    """Keys of the items that two reviewers see: about a share (0 to 1) of them, whatever else is shown."""
    return frozenset(item.key for item in items if _draw(seed, "shared", item.record.id) < share)


def _balanced(items: list[Item], seed: int) -> list[Item]:
    strata: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        strata.setdefault(item.stratum, []).append(item)
    placed = []
    for stratum, members in strata.items():
        members.sort(key=lambda item: _draw(seed, "sample", item.record.id))
        # The r-th of n stands at (r + u) / n, with one u in [0, 1) for each stratum: evenly spread from the start.
        start = _draw(seed, "stratum", *stratum)
        placed += [((rank + start) / len(members), item.record.id, item) for rank, item in enumerate(members)]
    return [item for _, _, item in sorted(placed, key=lambda place: place[:2])]


def _draw(seed: int, *what: str) -> float:
    """A number in [0, 1) that follows from its arguments, uniform over them."""
    written = "\x1f".join((str(seed), *what)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(written).digest()[:7], "big") / 2**56

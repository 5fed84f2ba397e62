"""The methods by name, and what each of them looks at."""

import dataclasses
from collections.abc import Callable

from vlm_jax.models.token_reduction import cdpruner, divprune, fastv, mmr, pool, pyramiddrop, visionzip


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to choose.

    Attributes:
      choose: (candidates) → which stay; None where the host chooses.
      needs: of `embeddings`, `importance`, `query`: what of the candidates it looks at.
      merge: (candidates, visual tokens) → the tokens with what is left out merged into some that stay.
      learned: what the model has learned for it (`learned.LEARNED`) is used: "scores" in place of importance, or
        "merge" in place of `merge`.
      factored: whether `choose` is given the most tokens that any image keeps, a number (`most`).
      in_decoder: whether it chooses between the decoder's layers, by the attention there (`in_decoder`).
    """

    choose: Callable | None
    needs: frozenset[str] = frozenset()
    merge: Callable | None = None
    learned: str = ""
    factored: bool = False
    in_decoder: bool = False


METHODS: dict[str, Method] = {
    "random": Method(None),
    "uniform": Method(None),
    "pool": Method(pool.choose, merge=pool.merge),
    "pool_learned": Method(pool.choose, learned="merge"),
    "divprune": Method(divprune.choose, frozenset({"embeddings"})),
    "mmr": Method(mmr.choose, frozenset({"embeddings", "importance"})),
    "mmr_learned": Method(mmr.choose, frozenset({"embeddings"}), learned="scores"),
    "cdpruner": Method(cdpruner.choose, frozenset({"embeddings", "query"}), factored=True),
    "visionzip": Method(visionzip.choose, frozenset({"embeddings", "importance"}), visionzip.merge),
    "fastv": Method(fastv.choose, frozenset({"importance"}), in_decoder=True),
    "pyramiddrop": Method(pyramiddrop.choose, frozenset({"importance"}), in_decoder=True),
}


def needs(method: str) -> frozenset[str]:
    """What a method looks at of the tokens that the tower made; nothing where none chooses among them."""
    return METHODS[method].needs if method and not METHODS[method].in_decoder else frozenset()

"""Recall against counting by hand."""

import pytest

from vlm_jax.errors import InputError
from vlm_jax.retrieval import recall

FOUND = [["a", "b", "c"], ["d", "a"], ["b", "c", "a"]]
GOLD = [["b"], ["e"], ["a", "c"]]


def test_recall_is_the_share_of_gold_passages_among_the_first_k():
    assert recall.recall_at(FOUND, GOLD, 1) == 0
    assert recall.recall_at(FOUND, GOLD, 2) == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert recall.recall_at(FOUND, GOLD, 3) == recall.recall_at(FOUND, GOLD, 99) == pytest.approx((1 + 0 + 1) / 3)


def test_the_reciprocal_rank_is_of_the_first_gold_passage():
    assert recall.reciprocal_rank(FOUND, GOLD) == pytest.approx((1 / 2 + 0 + 1 / 2) / 3)


def test_an_oracle_has_the_gold_passages_first():
    assert recall.oracle(FOUND[0], ["c"], 2) == ["c", "a"]
    assert recall.oracle(FOUND[0], ["e", "f"], 1) == ["e", "f"]
    assert recall.recall_at([recall.oracle(*pair, 1) for pair in zip(FOUND, GOLD, strict=True)], GOLD, 2) == 1


@pytest.mark.parametrize(
    ("found", "gold", "k"), [([], [], 1), (FOUND, GOLD[:2], 1), (FOUND, GOLD, 0), ([["a"]], [[]], 1)]
)
def test_recall_of_nothing_is_refused(found, gold, k):
    with pytest.raises(InputError, match="recall"):
        recall.recall_at(found, gold, k)

"""Questions that are asked already: found, whatever the order, and never joined where they ask for something else."""

import dataclasses
import os
import random

import numpy as np
import pytest

from data_pipeline.corpus.filters import minhash
from data_pipeline.corpus.filters.canonical import canonical, integers
from data_pipeline.corpus.filters.guards import one_edit
from data_pipeline.corpus.filters.near_text import duplicates
from data_pipeline.corpus.filters.pair import Pair
from tests.data_pipeline.corpus import planted

LONG = "Which material was the drum of the northern villages made of in those days"


def pair(name, question, answer="jackfruit wood", **fields):
    return Pair(id=name, question=question, answer=answer, **fields)


@pytest.fixture(scope="module")
def corpus():
    return planted.corpus(3000, 150, 90, 0, seed=3)


def test_planted_duplicates_are_found_and_no_changed_year_or_name_is_joined(corpus):
    pairs, expected = corpus
    found = duplicates(pairs).given_way
    one_of_two = [(one in found) != (other in found) for one, other in expected["duplicates"].items()]
    assert np.mean(one_of_two) >= 0.995
    assert set(found) <= set(expected["duplicates"]) | set(expected["duplicates"].values())
    # Without the guards the changed ones would be: they are as alike as duplicates are.
    by_id = {one.id: canonical(one.question) for one in pairs}
    alike = minhash.jaccard([(by_id[one], by_id[other]) for one, other in expected["changed"].items()])
    assert np.mean(alike >= 0.7) > 0.3


def test_what_stays_depends_on_no_order(corpus):
    pairs = corpus[0][:1000]
    expected = duplicates(pairs)
    assert len(expected.given_way) > 3
    shuffled = list(pairs)
    random.Random(1).shuffle(shuffled)
    assert duplicates(shuffled) == expected
    assert duplicates(pairs[::-1]) == expected


def test_a_pair_gives_way_to_one_that_stays_never_by_way_of_a_third():
    # The middle one is alike to both ends, which are too far apart from each other.
    ends = LONG + "?", LONG + " long gone, as people say who remember?"
    middle = LONG + " long gone, as people say?"
    assert minhash.jaccard([(ends[0], middle), (middle, ends[1]), ends]).round(1).tolist() == [0.7, 0.9, 0.6]
    numbers = set()
    for names in ("abc", "bca", "cab", "xyz", "kqr", "mno"):
        chain = [pair(name, question) for name, question in zip(names, (ends[0], middle, ends[1]), strict=True)]
        found = duplicates(chain).given_way
        middle_stays = min(chain, key=lambda one: one.rank).id == names[1]
        assert set(found) == ({names[0], names[2]} if middle_stays else {names[1]})
        numbers.add(len(found))
    assert numbers == {1, 2}


def test_exact_duplicates_are_told_from_near_ones():
    found = duplicates(
        [pair("a", LONG + "?"), pair("b", f" {LONG.upper()} ? "), pair("c", LONG + ", please?")]
    ).given_way
    assert sorted(one.exact for one in found.values()) in ([False, True], [False, False])
    assert len(found) == 2
    assert duplicates([pair("a", LONG + "?"), pair("b", LONG)]).given_way.popitem()[1].exact


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("สร้างในปี พ.ศ. ๒๕๖๐", "สร้างในปี พ.ศ. 2560"),
        ("สร้างในปี พ.ศ. 2560", "สร้างในปี ค.ศ. 2017"),
        ("สร้างในปี 2560", "สร้างในปี พ.ศ.2560"),
        ("built in 2560 BE", "built in 2017 CE"),
        ("built in B.E. 2560", "built in A.D. 2017"),
        ("built in 2560 BE", "Built in 2017."),
        ("some 1,500 people", "some 1500 people"),
        ("นํ้าตาล", "น้ำตาล"),
    ],
)
def test_years_and_numbers_are_written_in_one_way(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("มีคน 2560 คน", "มีคน 2017 คน"),  # no year
        ("built in 2560", "built in 2017"),
        ("built in 1782", "built in 1783"),
        ("พ.ศ. ๒๕๖๐", "พ.ศ. ๒๕๖๑"),
        ("007", "7"),
    ],
)
def test_other_numbers_stay_other_numbers(one, other):
    assert canonical(one) != canonical(other)


def test_integers_are_equal_or_nothing_is_one_edit():
    assert integers("9 of 12, and 9") == (9, 9, 12)
    assert one_edit("the drum of the north", "the drum of the far north")
    assert one_edit("the drum", "the drim")
    assert not one_edit("the drum of chiang mai", "the drum of nakhon phanom")
    assert not one_edit("in 1782", "in 1783")
    assert not one_edit("in 178", "in 1782")


def test_one_edit_is_a_removed_beginning_and_end_with_nothing_or_a_character_between():
    drawn = random.Random(0)
    texts = ["".join(drawn.choices("ab1", k=drawn.randrange(8))) for _ in range(3000)]
    shapes = set()
    for one, other in zip(texts, texts[1:], strict=False):
        start = len(os.path.commonprefix([one, other]))
        left, right = one[start:], other[start:]
        while left and right and left[-1] == right[-1]:
            left, right = left[:-1], right[:-1]
        shape = not left or not right or len(left) == len(right) == 1
        shapes.add(shape)
        assert one_edit(one, other) == (shape and integers(one) == integers(other)), (one, other)
    assert shapes == {True, False}


def test_equal_answers_or_the_same_fact_are_required_and_others_are_contradictions():
    one, other = pair("a", LONG + "?", topic="drum"), pair("b", LONG + ", please?", "bamboo", topic="drum")
    assert duplicates([one, other]).given_way == {}
    assert duplicates([one, other]).contradictions in ([("a", "b")], [("b", "a")])
    same = [dataclasses.replace(each, fact_id="drum/made of") for each in (one, other)]
    assert len(duplicates(same).given_way) == 1 and len(duplicates(same).contradictions) == 1
    polar = [dataclasses.replace(each, answer=answer) for each, answer in zip(same, ("yes", "no"), strict=True)]
    assert duplicates(polar).given_way == {} and len(duplicates(polar).contradictions) == 1
    numbers = [dataclasses.replace(each, answer=answer) for each, answer in zip(same, ("in 1782", "1783"), strict=True)]
    assert duplicates(numbers).given_way == {}


def test_questions_of_different_topics_or_languages_are_no_duplicates_and_no_contradictions():
    asked = "What is this thing in the middle called?"
    pairs = [pair(str(number), asked, "bowl", topic=f"t{number}", image=f"{number}.jpg") for number in range(300)]
    pairs += [pair(f"b{number}", asked, "cup", topic=f"u{number}", image=f"u{number}.jpg") for number in range(300)]
    assert duplicates(pairs).given_way == {} and duplicates(pairs).contradictions == []
    assert duplicates([pair("a", LONG), pair("b", LONG, language="de")]).given_way == {}


def test_a_pair_without_a_topic_may_be_of_any():
    pairs = [pair("a", LONG, topic="drum"), pair("b", LONG), pair("c", LONG, topic="boat")]
    found = duplicates(pairs).given_way
    assert len(found) in (1, 2)
    assert not ("a" in found and found["a"].survivor == "c") and not ("c" in found and found["c"].survivor == "a")


def test_other_images_can_be_asked_the_same():
    pairs = [pair(name, LONG, topic="drum", image=f"{name}.jpg") for name in "abc"] + [
        pair("d", LONG, topic="drum", image="a.jpg")
    ]
    assert len(duplicates(pairs).given_way) == 3
    found = duplicates(pairs, same_image=True).given_way
    assert len(found) == 1 and set(found) < {"a", "d"}


def test_signatures_estimate_the_jaccard_similarity():
    texts = [LONG, LONG + ", please", LONG.replace("drum", "flute"), "abc", "", "กลองของหมู่บ้านทางเหนือ"]
    signed = minhash.signatures(texts)
    assert (signed == minhash.signatures(texts[::-1])[::-1]).all()  # of the text alone
    for one in range(3):
        exact = minhash.jaccard([(texts[0], texts[one])])[0]
        assert abs((signed[0] == signed[one]).mean() - exact) < 0.13
    hashed, offsets = minhash.shingles(["abcdefg", "ab"])
    assert len(hashed) == 4 and offsets.tolist() == [0, 3]


def test_a_full_bucket_is_compared_in_a_window():
    names = np.arange(1, 1001, dtype=np.uint64)
    entries = np.stack([np.full(1000, 7, np.uint64), np.zeros(1000, np.uint64), names], axis=1)
    pairs = minhash.windowed(entries[::-1], 3)
    assert len(pairs) == 3 * 1000 - 6
    assert (pairs[:, 1] - pairs[:, 0]).max() == 3

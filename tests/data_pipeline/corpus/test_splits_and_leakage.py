"""Splits depend on what is held out and nothing else; what two splits have in common is found; swapped images."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest

from data_pipeline.corpus import leakage, splits
from data_pipeline.corpus.filters import Pair
from data_pipeline.corpus.filters.near_images import image_hashes
from data_pipeline.corpus.filters.negatives import ANSWERS, negatives
from vlm_jax.errors import InputError

PHOTOS = Path(__file__).resolve().parents[2] / "data" / "photos"
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def corpus(topics=60, facts=3, views=4, language="en"):
    asked = {"en": "Which {fact} does number {view} of this have?", "th": "ของชิ้นที่ {view} นี้มี {fact} อะไร"}[language]
    return [
        Pair(
            id=f"{topic}-{fact}-{view}",
            question=asked.format(fact=("maker", "town", "use")[fact], view=view),
            answer=f"answer {topic}",
            topic=f"thing {topic}",
            fact_id=f"{topic}/{fact}",
            image=f"{topic}-{view}.jpg",
            language=language,
        )
        for topic in range(topics)
        for fact in range(facts)
        for view in range(views)
    ]


def assigned(pairs, shares, *, held_out="topic", seed=0):
    """Pairs in splits, what is held out as a whole in one."""
    return [replace(pair, split=splits.split_of(getattr(pair, held_out), shares, seed)) for pair in pairs]


@pytest.mark.parametrize("held_out", ("topic", "fact_id", "image", "id"))
def test_what_is_held_out_is_in_one_split_only(held_out):
    found = assigned(corpus(), SHARES, held_out=held_out)
    where = {}
    for pair in found:
        where.setdefault(getattr(pair, held_out), set()).add(pair.split)
    assert max(map(len, where.values())) == 1
    counts = Counter(next(iter(one)) for one in where.values())
    assert set(counts) == set(SHARES) and counts["train"] > 0.6 * len(where)


def test_more_pairs_and_another_order_move_none():
    few, many = assigned(corpus(topics=40), SHARES), assigned(corpus(topics=90)[::-1], SHARES)
    assert {pair.id: pair.split for pair in few}.items() <= {pair.id: pair.split for pair in many}.items()
    other = assigned(corpus(topics=40), SHARES, seed=1)
    assert [pair.split for pair in few] != [pair.split for pair in other]


def test_topics_facts_images_and_wordings_in_two_splits_are_found_and_refused():
    pairs = assigned(corpus(), SHARES, held_out="image")
    found = leakage.leakage(pairs)
    assert found.count("topic")[0] > 0 and found.count("fact")[0] > 0
    assert found.count("image") == (0, 0)
    assert found.count("question")[0] == 12
    with pytest.raises(InputError) as error:
        leakage.check(found, ("topic", "question"))
    text = str(error.value)
    assert "the topic 'thing 0' is in" in text and "more of topic" in text and "'which maker does number 0" in text
    assert "the fact" not in text
    leakage.check(found, ("image",))
    with pytest.raises(InputError, match="did you mean 'topic'"):
        leakage.check(found, ("topics",))


def test_topics_that_are_held_out_leak_nothing_but_their_wordings():
    found = leakage.leakage(assigned(corpus(), SHARES))
    assert [found.count(kind)[0] for kind in ("topic", "fact", "image")] == [0, 0, 0]
    leakage.check(found, ("topic", "fact", "image"))


def test_questions_that_are_nearly_the_same_are_listed_not_refused():
    text = "Which material was the drum of the northern villages made of"
    pairs = [
        Pair("a", f"{text}?", "bamboo", topic="a", split="train"),
        Pair("b", f"{text}, please?", "bamboo", topic="b", split="test"),
        Pair("c", f"{text} in those days?", "bamboo", topic="c", split="train"),
    ]
    found = leakage.leakage(pairs)
    assert found.exact == []
    assert [(leak.kind, set(leak.splits), set(leak.ids)) for leak in found.near] == [
        ("question", {"train", "test"}, {"a", "b"})
    ]
    leakage.check(found)


def test_the_bytes_of_an_image_count_not_its_name_and_flipped_ones_are_near(tmp_path):
    copy, flipped = tmp_path / "copy.jpg", tmp_path / "flipped.jpg"
    copy.write_bytes((PHOTOS / "temple.jpg").read_bytes())
    with PIL.Image.open(PHOTOS / "coffee.jpg") as image:
        image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(flipped)
    shown = [PHOTOS / "temple.jpg", PHOTOS / "coffee.jpg", copy, flipped]
    pairs = [
        Pair(str(number), f"What is {number}?", "it", image=str(image), split=("train", "test")[number // 2])
        for number, image in enumerate(shown)
    ]
    images = [pair.image for pair in pairs]
    assert leakage.leakage(pairs).count("image") == (0, 0)
    found = leakage.leakage(pairs, digests=leakage.image_digests(images), hashes=image_hashes(images))
    assert found.count("image") == (1, 1)
    with pytest.raises(InputError, match="the image"):
        leakage.check(found)
    with pytest.raises(InputError) as error:
        leakage.image_digests([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert len(error.value.lines) == 2


@pytest.mark.parametrize("language", ["en", "th"])
def test_negatives_show_another_topic_and_say_that_it_is_not_there(language):
    pairs = assigned(corpus(language=language), SHARES)
    made = negatives(pairs, 0.1, seed=0)
    assert len(made.swapped) == len(pairs) // 10
    topics = {pair.image: pair.topic for pair in pairs}
    sides = {pair.image: pair.split for pair in pairs}
    for pair in made.swapped:
        assert topics[pair.image] != pair.topic and sides[pair.image] == pair.split
        assert pair.topic.casefold() in pair.answer.casefold() and pair.topic in pair.question
        assert pair.reasoning == ""
    assert len({pair.answer.casefold().replace(pair.topic, "") for pair in made.swapped}) == len(ANSWERS[language])
    # The form with the topic's name before it would give the answer away: it is asked of the right image, too.
    assert {pair.question for pair in made.named} == {pair.question for pair in made.swapped}
    right = {pair.id: pair for pair in pairs}
    for pair in made.named:
        assert pair.image == right[pair.id.removesuffix("-named")].image
        assert pair.answer == right[pair.id.removesuffix("-named")].answer


def test_negatives_depend_on_no_order_and_keep_a_question_that_names_its_topic():
    pairs = corpus()
    assert negatives(pairs[::-1], 0.05, seed=2) == negatives(pairs, 0.05, seed=2)
    assert negatives(pairs, 0.05, seed=3) != negatives(pairs, 0.05, seed=2)
    named = [replace(pair, question=f"Who made the {pair.topic}?") for pair in pairs]
    made = negatives(named, 0.05, seed=2)
    assert made.named == [] and all(pair.question.startswith("Who made the thing") for pair in made.swapped)
    names = {f"thing {topic}": {"en": f"Naga {topic}"} for topic in range(60)}
    assert all("Naga" in pair.answer for pair in negatives(pairs, 0.05, seed=2, names=names).swapped)


def test_an_image_that_shows_the_topic_or_fact_elsewhere_is_not_taken():
    shared = [
        Pair("a", "Where is it from?", "Nan", topic="drum", fact_id="f", image="1.jpg"),
        Pair("b", "Where is it from?", "Nan", topic="boat", image="2.jpg"),
        Pair("c", "What else is it?", "a drum", topic="drum", image="2.jpg"),  # 2.jpg shows both
        Pair("d", "What else is it?", "a drum", topic="gate", fact_id="f", image="3.jpg"),  # and 3.jpg the fact
        Pair("e", "Where is it from?", "Nan", topic="kite", image="4.jpg"),
    ]
    made = negatives(shared, 1.0, seed=0)
    taken = {pair.id: pair.image for pair in made.swapped}
    assert taken["a-swapped"] == "4.jpg"
    with pytest.raises(InputError, match="lower the share"):
        negatives(shared[:1], 1.0, seed=0)
    with pytest.raises(InputError, match="0 to 1"):
        negatives(shared, 1.5, seed=0)

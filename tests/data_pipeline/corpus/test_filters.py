"""What filters keep and drop beside the labelled cases, how they are chosen, applied and counted."""

import dataclasses

import numpy as np
import pytest

from data_pipeline.corpus.filters import (
    FILTERS,
    Pair,
    Verdict,
    apply,
    default_settings,
    from_record,
    select,
    thai_tokens,
)
from data_pipeline.corpus.filters import pair as pair_module
from data_pipeline.corpus.filters.language import likeliest
from data_pipeline.corpus.filters.mentions import mentioned
from data_pipeline.corpus.filters.retention import retention, table
from data_pipeline.corpus.filters.similarity import cosine, sweep
from data_pipeline.corpus.filters.word_edges import stands_in
from data_pipeline.records import Record
from vlm_jax.errors import InputError

GOOD = Pair("a", "What is this called?", "krathong", topic="float", fact_id="float/name", image="a.jpg")


def replaced(**fields):
    return dataclasses.replace(GOOD, **fields)


def record(question, reply, **fields):
    content = [{"type": "image", "image": "/images/a.jpg"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": reply}]
    return Record("r", messages, **fields)


def test_a_pair_is_read_from_a_record():
    provenance = {"language": "th", "image_source": "drawn"}
    found = from_record(record("What is it?", "a bowl", fact_id="bowl/name", split="train", provenance=provenance))
    assert found == Pair(
        "r", "What is it?", "a bowl", "bowl", "bowl/name", "", "/images/a.jpg", "", "", "th", "train", "drawn"
    )
    found = from_record(record("Article.\n\nWhat is it?", "a bowl", context="Article.", answers=["bowl"]))
    assert (found.question, found.context, found.answer) == ("What is it?", "Article.", "bowl")
    found = from_record(record("What is it?", "I see clay. Answer: a bowl", reasoning="I see clay."))
    assert (found.answer, found.reasoning) == ("a bowl", "I see clay. Answer: a bowl")
    with pytest.raises(InputError, match="no question with an answer"):
        from_record(Record("r", [{"role": "user", "content": "What is it?"}]))


def test_a_pair_survives_json_and_other_fields_are_refused_by_name():
    assert pair_module.from_json(pair_module.to_json(GOOD), "here") == GOOD
    with pytest.raises(InputError) as error:
        pair_module.from_json({"id": "a", "question": 3, "anwser": "x"}, "here")
    assert len(error.value.lines) == 3 and "'anwser'" in error.value.lines[0]
    with pytest.raises(InputError, match="surrogate"):
        Pair("a", "\ud800", "b")


def test_unknown_filters_and_options_are_refused_naming_the_nearest():
    with pytest.raises(InputError) as error:
        select(
            {"schemas": True, "language": {"shares": 0.5}, "consistent": {"share": 2, "metric": "contain"}, "judged": 1}
        )
    text = str(error.value)
    assert len(error.value.lines) == 5
    assert "did you mean 'schema'?" in text and "did you mean 'share'?" in text and "did you mean 'contains'?" in text
    with pytest.raises(InputError, match="wanted one like"):
        select({"near_duplicate": {"window": "3"}})


def test_every_filter_can_be_switched_by_a_setting():
    settings = default_settings()
    assert set(settings) == set(FILTERS)
    assert list(select(settings)) == ["schema", "chain_of_thought", "language", "near_duplicate"]
    for name in FILTERS:
        assert name in select({**settings, name: {**settings[name], "on": True}})
        assert name not in select({**settings, name: {**settings[name], "on": False}})
        assert list(select({name: True})) == [name] and select({name: False}) == {}


def test_pairs_are_kept_or_dropped_with_a_reason_and_counted():
    pairs = [
        GOOD,
        replaced(id="b", answer=""),
        replaced(id="c", question="A bowl."),
        replaced(id="d"),
        replaced(id="e"),
    ]
    evidence = {"verdicts": {id: Verdict(id != "e", "no such thing", "other") for id in "abcde"}}
    outcome = apply({"schema": True, "judged": True, "near_duplicate": True}, pairs, evidence)
    assert len(outcome.kept) == 1 and outcome.kept[0].id in "ad"
    reasons = {one.pair.id: (one.filter, one.reason) for one in outcome.dropped}
    assert reasons["b"] == ("schema", "empty field: answer")
    assert reasons["e"] == ("judged", "refused by the judge other: no such thing")
    assert [(count.filter, count.kept, count.dropped) for count in outcome.counts] == [
        ("schema", 3, 2),
        ("judged", 2, 1),
        ("near_duplicate", 1, 1),
    ]
    assert outcome.counts[0].reasons == {"empty field": 1, "no question": 1}
    assert {one.pair.id for one in outcome.counts[0].examples} == {"b", "c"}
    turned = apply({"schema": True, "judged": True, "near_duplicate": True}, pairs[::-1], evidence)
    assert {one.id for one in turned.kept} == {one.id for one in outcome.kept}
    assert turned.counts == outcome.counts


def test_evidence_that_is_missing_is_named():
    with pytest.raises(InputError, match="filters.judged needs the evidence 'verdicts'"):
        apply({"judged": True}, [GOOD])
    with pytest.raises(InputError, match="lacks 1 of 2 pairs, first 'b'"):
        apply({"consistent": True}, [GOOD, replaced(id="b")], {"samples": {"a": ["krathong"], "b": []}})
    with pytest.raises(InputError, match="'image_hashes' lacks 1"):
        apply({"near_image": True}, [GOOD], {"image_hashes": {}})
    # None is wanted of a pair without an article.
    assert apply({"answerable_from_article": True}, [GOOD], {"from_article": {}}).kept == [GOOD]
    with pytest.raises(InputError, match="more than once, first 'a'"):
        apply({}, [GOOD, GOOD])


def test_languages_without_words_for_an_image_are_refused_until_they_have_some():
    article = "Das Bild zeigt einen Tempel; die Bildung ist ihm fremd."
    with pytest.raises(InputError, match="'de'"):
        mentioned(article, "de")
    german = replaced(context=article, language="de-AT")
    assert FILTERS["image_mention"].check(german, words={"de": ["Bild", "Bilder"]}) == "mentions an image: Bild"
    other = replaced(context="Die Bildung ist ihm fremd.", language="de")
    assert FILTERS["image_mention"].check(other, words={"de": ["Bild", "Bilder"]}) == ""


@pytest.mark.parametrize(
    ("text", "word", "whole"),
    [
        ("चित्र में", "चित्र", True),
        ("चित्रकार ने", "चित्र", False),
        ("चित्रों में", "चित्र", False),  # a vowel sign is no edge of a word
        ("écran", "cran", False),
        ("l'image", "image", True),
        ("这是一幅图片。", "图片", True),
        ("5.5 metres", "5", False),
        ("15", "5", False),
        ("a 5, then", "5", True),
        ("กางเกง", "กา", True),  # for which there is thai_tokens
        ("เกลือ", "ก", False),
        ("มากะทิ", "กะ", True),
        ("น้ำตา", "นํ", False),
    ],
)
def test_words_have_edges_in_every_script(text, word, whole):
    assert stands_in(text, word) is whole


def test_thai_words_are_told_by_a_dictionary_which_does_not_know_every_name():
    assert thai_tokens.cuts_a_word("เขาสวมกางเกงสีดำ", 6, 8)
    assert not thai_tokens.cuts_a_word("เขาเป่าโหวดในงานบุญ", 7, 11)


def test_pythainlp_that_is_not_installed_is_named(monkeypatch):
    import sys

    thai_tokens._dictionary.cache_clear()
    monkeypatch.setitem(sys.modules, "pythainlp.corpus", None)
    thai = replaced(context="เขาสวมกางเกงสีดำ", answer="สีดำ", language="th")
    with pytest.raises(InputError, match=r"vlm-jax\[corpus\]"):
        FILTERS["answer_in_article"].check(thai, thai_words=True)
    thai_tokens._dictionary.cache_clear()


def test_the_sweep_says_what_each_threshold_would_keep():
    assert sweep([0.1, 0.5, 0.9, 0.9], [0.0, 0.5, 0.6, 1.0]) == [(0.0, 4, 0), (0.5, 3, 1), (0.6, 2, 2), (1.0, 0, 4)]
    assert cosine([[1, 0], [3, 4]]) == pytest.approx(0.6)
    assert cosine([[0, 0], [3, 4]]) == 0
    with pytest.raises(InputError, match="embeddings"):
        cosine([[1, np.nan], [3, 4]])
    facts = [replaced(id=name, fact="It is a float.") for name in "bc"]
    outcome = apply(
        {"near_fact": {"threshold": 0.7}},
        [GOOD, *facts],
        {"embeddings": {"b": [[1, 0], [1, 0]], "c": [[1, 0], [0, 1]]}},
    )
    assert [one.id for one in outcome.kept] == ["a", "b"]


def test_retention_is_printed_as_it_was_published():
    articles = {
        "laion": ["In the picture stands krathong.", "A krathong floats.", "It floats.", "A photo of a krathong."],
        "wikipedia": ["A krathong floats.", "It floats on water."],
    }
    pairs = [
        replaced(id=f"{source}{number}", context=article, image_source=source)
        for source, every in articles.items()
        for number, article in enumerate(every)
    ]
    rows = retention([*pairs, GOOD])
    assert rows == [
        ("laion", 4, 0.5, 0.25),
        ("wikipedia", 2, 1.0, 0.5),
        ("all", 6, pytest.approx(2 / 3), pytest.approx(1 / 3)),
    ]
    print("\n" + table(rows))
    assert table(rows).splitlines()[1].split() == ["laion", "4", "50%", "25%"]


def test_a_language_is_another_one_only_where_words_say_so():
    assert likeliest("Wat Arun, Bangkok", "en") == "en"
    assert likeliest("Wie heißt das Fest, und wo ist es?", "en") == "de"
    assert FILTERS["language"].check(replaced(language="xx"), share=0.5) == "unknown language: 'xx'"


def test_the_built_in_corpus_passes_the_filters_of_its_form():
    from data_pipeline.corpus.drawn import objects, wordings

    pairs = []
    for thing in objects.CATALOGUE[:6]:
        for kind in wordings.FACTS:
            for language in ("en", "th"):
                for number, question in enumerate(wordings.questions(kind, language, held_out=False)):
                    steps = number == 0 and language == "en"
                    reasoning, reply = wordings.answered(thing, kind, language, steps=steps)
                    fields = {
                        "fact_id": f"{thing.key}/{kind}",
                        "provenance": {"language": language},
                        "reasoning": reasoning,
                    }
                    asked = question + (wordings.STEPS if steps else "")
                    one = from_record(record(asked, reply, **fields))
                    pairs.append(dataclasses.replace(one, id=f"{thing.key}/{kind}/{language}/{number}"))
    outcome = apply({"schema": True, "chain_of_thought": True, "language": True}, pairs)
    assert [(one.pair, one.reason) for one in outcome.dropped] == []

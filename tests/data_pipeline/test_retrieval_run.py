"""Records get the passages that were found as their context: which, in which order, and with which answer."""

import dataclasses
import json

import pytest

from data_pipeline import retrieval_run, sources
from data_pipeline.contexts import ContextRules, gold_of, unanswered, with_context
from data_pipeline.records import Record
from data_pipeline.retrieval_run import Retrieval, report_of, retrieve
from tests.retrieval_world import PASSAGES, write_passages
from tests.tiny_encoders import save_clip
from tests.tiny_models import PHOTOS, user
from vlm_jax.errors import InputError
from vlm_jax.retrieval.building import build
from vlm_jax.retrieval.encoder import load_encoder
from vlm_jax.retrieval.passages import Passage

TEXTS = {id: f"The {word} passage." for id, word in zip("abcdef", "red blue green grey pink gold".split(), strict=True)}
FOUND = list("abcdef")


def passage_of(id):
    return Passage(id, TEXTS[id], f"Title {id}")


def asked(answer="blue", gold="b", **more) -> Record:
    messages = [{"role": "user", "content": "Which one?"}, {"role": "assistant", "content": answer}]
    return Record("r1", messages, provenance={"passage_id": gold, "model": "m"}, where="r.jsonl, line 1", **more)


def shown(record) -> list[tuple]:
    return [(one["id"], one["rank"], one.get("gold", False)) for one in record.provenance["passages"]]


def test_the_best_found_stand_in_the_context_with_their_ranks():
    record = with_context(asked(), FOUND, ["b"], passage_of, ContextRules(k=2))
    assert record.context == "Title a\nThe red passage.\n\nTitle b\nThe blue passage."
    assert shown(record) == [("a", 1, False), ("b", 2, True)] and record.provenance["model"] == "m"
    assert record.messages == asked().messages and "answer_in_context" not in record.provenance


def test_the_oracle_shows_gold_passages_alone_whether_they_were_found_or_not():
    record = with_context(asked(), ["a", "c"], ["b"], passage_of, ContextRules(oracle=True))
    assert shown(record) == [("b", None, True)] and record.context == "Title b\nThe blue passage."
    with pytest.raises(InputError, match="r.jsonl, line 1: names no gold passage, which the oracle shows"):
        with_context(asked(), FOUND, [], passage_of, ContextRules(oracle=True))


def test_distractors_are_the_best_wrong_ones_in_an_order_of_the_seed():
    rules = ContextRules(oracle=True, distractors=3)
    orders = {
        seed: shown(with_context(asked(), FOUND, ["b"], passage_of, dataclasses.replace(rules, seed=seed)))
        for seed in range(8)
    }
    assert all(
        set(order) == {("b", 2, True), ("a", 1, False), ("c", 3, False), ("d", 4, False)} for order in orders.values()
    )
    assert len({tuple(order) for order in orders.values()}) > 3
    assert shown(with_context(asked(), FOUND, ["b"], passage_of, rules)) == orders[0]
    beside = with_context(asked(), FOUND, ["c"], passage_of, ContextRules(k=2, distractors=2))
    assert {id for id, _, _ in shown(beside)} == {"a", "b", "d", "e"}  # the two best, and the best wrong ones behind


def test_a_context_that_lacks_the_answer_has_neither_gold_nor_its_words_and_the_answer_becomes_the_refusal():
    rules = ContextRules(k=3, without_answer=1.0, refusal="cannot tell")
    record = with_context(asked("pink", answers=["pink", "red"]), FOUND, ["b"], passage_of, rules, lacks_answer=True)
    assert shown(record) == [("c", 3, False), ("d", 4, False), ("f", 6, False)]
    assert record.messages[1]["content"] == "cannot tell" and record.answers == ["cannot tell"]
    assert record.provenance["answer_in_context"] is False
    kept = with_context(asked(), FOUND, ["b"], passage_of, rules)
    assert kept.messages[1]["content"] == "blue" and kept.provenance["answer_in_context"] is True
    with pytest.raises(InputError, match="all 1 passages found for it have its answer, so none can lack it"):
        with_context(asked(), ["b"], ["b"], passage_of, rules, lacks_answer=True)


def test_which_records_lack_their_answer_follows_from_seed_and_ids_alone():
    ids = [f"r{number}" for number in range(50)]
    chosen = unanswered(ids, ContextRules(without_answer=0.3))
    assert len(chosen) == 15 and chosen == unanswered(ids[::-1], ContextRules(without_answer=0.3))
    assert chosen != unanswered(ids, ContextRules(without_answer=0.3, seed=1))
    assert unanswered(ids, ContextRules()) == set() and len(unanswered(ids, ContextRules(without_answer=1.0))) == 50


def test_a_gold_passage_is_named_by_a_key_of_the_provenance_or_by_the_fact():
    assert gold_of(asked(), "passage_id") == ["b"] and gold_of(asked(gold=["b", "a", "b"]), "passage_id") == ["b", "a"]
    assert gold_of(asked(fact_id="f1"), "fact_id") == ["f1"] and gold_of(asked(), "entity") == []
    with pytest.raises(InputError, match="provenance.passage_id is 3; wanted the id of a passage"):
        gold_of(asked(gold=3), "passage_id")


def test_rules_that_cannot_be_are_all_told():
    with pytest.raises(InputError) as raised:
        ContextRules(k=0, distractors=-1, without_answer=1.5, refusal=" ")
    assert len(raised.value.lines) == 4


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A CLIP, an index, and questions about its passages."""
    root = tmp_path_factory.mktemp("world")
    save_clip(root / "clip")
    build(load_encoder(root / "clip"), write_passages(root / "knowledge"), root / "index")
    records = []
    for number, (gold, image) in enumerate(
        [("cat", "chelsea.jpg"), ("rocket", "hubble.jpg"), ("moon", None), (None, None)]
    ):
        question = user(f"What is number {number}?", *([str(PHOTOS / image)] if image else []))
        provenance = {"provenance": {"passage_id": gold}} if gold else {}
        answered = [question, {"role": "assistant", "content": f"answer {number}"}]
        records.append({"id": f"r{number}", "messages": answered, **provenance})
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n")
    return root


def settings(world, output, **more) -> Retrieval:
    paths = {"records": str(world / "questions.jsonl"), "index": str(world / "index"), "encoder": str(world / "clip")}
    weights = {"image_to_image": 4.0, "text_to_text": 1.0}
    return Retrieval(**{**paths, "output": str(output), "weights": weights, "rules": ContextRules(k=2), **more})


def test_records_are_written_with_contexts_and_recall_is_told(world, tmp_path):
    output = tmp_path / "with.jsonl"
    summary = retrieve(settings(world, output))
    records, errors = sources.read(output)
    assert errors == [] and [record.id for record in records] == ["r0", "r1", "r2", "r3"]
    assert [record.provenance["passages"][0]["id"] for record in records[:2]] == ["cat", "rocket"]
    assert records[0].context.startswith("Chelsea\nA tabby cat that looks at you.\n\n")
    gold = [["cat"], ["rocket"], ["moon"]]
    ranks = [[one["id"] for one in record.provenance["passages"]] for record in records[:3]]
    hits = [mine[0] == ids[0] for ids, mine in zip(ranks, gold, strict=True)]
    assert summary["recall"]["1"] == pytest.approx(sum(hits) / 3)
    # Of as many passages as a context has too, and not of all there are, which is always all.
    assert list(summary["recall"]) == ["1", "2"]
    hits = [mine[0] in ids for ids, mine in zip(ranks, gold, strict=True)]
    assert summary["recall"]["2"] == pytest.approx(sum(hits) / 3)
    assert summary["records"] == 4 and summary["records_with_gold"] == 3
    assert json.loads(report_of(output).read_text()) == summary
    assert "of 3 records that name their gold passage" in retrieval_run.closing_lines(summary, str(output))
    again = tmp_path / "again.jsonl"
    retrieve(settings(world, again))
    assert again.read_bytes() == output.read_bytes()


def test_the_records_are_never_written_over(world, tmp_path):
    records = tmp_path / "questions.jsonl"
    records.write_bytes((world / "questions.jsonl").read_bytes())
    with pytest.raises(InputError, match="would take the place of --records; name another file"):
        retrieve(settings(world, records, records=str(records)))
    assert records.read_bytes() == (world / "questions.jsonl").read_bytes()


def test_faiss_and_the_device_write_the_same_bytes(world, tmp_path):
    for backend in ("device", "faiss"):
        retrieve(settings(world, tmp_path / f"{backend}.jsonl", backend=backend, fusion="rrf"))
    assert (tmp_path / "device.jsonl").read_bytes() == (tmp_path / "faiss.jsonl").read_bytes()


def test_errors_are_told_before_anything_is_written(world, tmp_path):
    output = tmp_path / "with.jsonl"
    with pytest.raises(InputError, match=r"line 4.*: names no gold passage \(passage_id\), which --oracle shows"):
        retrieve(settings(world, output, rules=ContextRules(oracle=True)))
    broken = tmp_path / "broken.jsonl"
    broken.write_text((world / "questions.jsonl").read_text().replace('"moon"', '"sun"'))
    with pytest.raises(InputError, match="passage_id names 'sun', which is no passage of"):
        retrieve(settings(world, output, records=str(broken)))
    with pytest.raises(InputError, match="wanted the name of a .jsonl file"):
        retrieve(settings(world, tmp_path / "with.json"))
    save_clip(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="an index built with another encoder"):
        retrieve(settings(world, output, encoder=str(tmp_path / "other")))
    assert not output.exists()


def test_records_that_name_no_gold_passage_have_no_recall(world, tmp_path):
    summary = retrieve(settings(world, tmp_path / "with.jsonl", gold="entity"))
    assert summary["recall"] is None and summary["records_with_gold"] == 0
    assert "no record names its gold passage" in retrieval_run.closing_lines(summary, "with.jsonl")
    assert len(PASSAGES) == summary["passages"]

"""Shards: the same bytes from every runner and number of shards, and what `apply` gives in memory."""

import json

import pytest

from data_pipeline.corpus.filters import apply
from data_pipeline.corpus.filters.pair import Pair, to_json
from data_pipeline.corpus.filters.registry import select
from data_pipeline.corpus.shards import filtering, merging, plan, runners, stages
from data_pipeline.corpus.shards.files import lines_from, read_lines, write_lines
from tests.data_pipeline.corpus import planted
from vlm_jax.errors import InputError

SETTINGS = dict.fromkeys(("schema", "chain_of_thought", "language", "image_mention", "near_duplicate"), True)
FILES = ("kept.jsonl", "dropped.jsonl", "contradictions.jsonl")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two files of pairs, and what they hold."""
    folder = tmp_path_factory.mktemp("corpus")
    pairs, expected = planted.corpus(1200, 60, 36, 24, seed=5)
    # Some that contradict each other, and some with an empty line between them.
    pairs += [
        Pair(f"x{n}", "Which town is the old drum from, in the north?", f"town {n}", image="x.jpg") for n in range(4)
    ]
    write_lines(folder / "a.jsonl", map(to_json, pairs[:900]))
    write_lines(folder / "b.jsonl", map(to_json, pairs[900:]))
    with open(folder / "b.jsonl", "ab") as file:
        file.write(b"\n")
    return [folder / "a.jsonl", folder / "b.jsonl"], pairs, expected


@pytest.fixture(scope="module")
def plain(corpus, tmp_path_factory):
    """One shard in one process."""
    folder = tmp_path_factory.mktemp("plain")
    plan.prepare(folder, corpus[0], 1, SETTINGS)
    return folder, runners.in_one_process(folder)


def same_bytes(one, other):
    return [name for name in FILES if (one / name).read_bytes() != (other / name).read_bytes()] == []


@pytest.mark.parametrize("shards", [1, 3])
def test_pairs_in_memory_come_to_the_same_by_shards(corpus, tmp_path, monkeypatch, shards):
    monkeypatch.setattr(runners, "in_processes", lambda folder, workers: runners.in_one_process(folder))
    pairs = sorted(corpus[1], key=lambda pair: pair.id)
    expected = apply(SETTINGS, pairs)
    found = filtering.filtered(select(SETTINGS), pairs, "processes", shards, tmp_path)
    assert (found.kept, found.dropped, found.counts) == (expected.kept, expected.dropped, expected.counts)
    assert found.contradictions == sorted(expected.contradictions) != []
    assert list(tmp_path.iterdir()) == []


def test_shards_keep_and_drop_what_is_kept_and_dropped_in_memory(corpus, plain):
    _, pairs, expected = corpus
    folder, merged = plain
    outcome = apply(SETTINGS, pairs)
    assert [entry["id"] for entry in read_lines(merged.kept)] == sorted(pair.id for pair in outcome.kept)
    reasons = {one.pair.id: (one.filter, one.reason) for one in outcome.dropped}
    dropped = list(read_lines(merged.dropped))
    assert {entry["pair"]["id"]: (entry["filter"], entry["reason"]) for entry in dropped} == reasons
    for one, other in zip(merged.counts, outcome.counts, strict=True):
        assert (one.filter, one.kept, one.dropped, one.reasons) == (
            other.filter,
            other.kept,
            other.dropped,
            other.reasons,
        )
        assert one.examples == other.examples
    assert list(map(tuple, read_lines(merged.contradictions))) == list(outcome.contradictions)
    assert sum(1 for _ in read_lines(merged.contradictions)) >= 3
    assert all(reasons[id][0] == name for id, name in expected["faulty"].items())


def test_four_shards_give_the_bytes_of_one(corpus, plain, tmp_path):
    plan.prepare(tmp_path, corpus[0], 4, SETTINGS)
    merged = runners.in_one_process(tmp_path)
    assert same_bytes(tmp_path, plain[0])
    assert merged.counts == plain[1].counts


def test_pieces_of_an_array_job_give_the_bytes_of_one_in_any_order(corpus, plain, tmp_path):
    plan.prepare(tmp_path, corpus[0], 3, SETTINGS)
    for stage in stages.STAGES:
        for shard in (2, 0, 1):
            stages.run(tmp_path, stage, shard=shard, of=3)
    stages.run(tmp_path, "sign", shard=1, of=3)  # again, of a scheduler that does not know that it is done
    merging.merge(tmp_path)
    assert same_bytes(tmp_path, plain[0])


def test_spawned_processes_give_the_bytes_of_one(corpus, plain, tmp_path):
    plan.prepare(tmp_path, corpus[0], 4, SETTINGS)
    runners.in_processes(tmp_path, 2)
    assert same_bytes(tmp_path, plain[0])


def test_ray_gives_the_bytes_of_one_process(corpus, plain, tmp_path):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'vlm-jax[ray]'")
    plan.prepare(tmp_path, corpus[0], 4, SETTINGS)
    runners.on_ray(tmp_path, cpus=1)
    assert not ray.is_initialized()
    assert same_bytes(tmp_path, plain[0])


def test_ray_that_is_not_installed_is_named(monkeypatch, corpus, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    plan.prepare(tmp_path, corpus[0], 1, SETTINGS)
    with pytest.raises(InputError, match=r"vlm-jax\[ray\]"):
        runners.on_ray(tmp_path)


def test_a_stage_comes_after_the_one_before(corpus, tmp_path):
    plan.prepare(tmp_path, corpus[0], 2, SETTINGS)
    stages.run(tmp_path, "split", shard=0, of=2)
    with pytest.raises(InputError, match=r"sign comes after split, which is not done for shards \[1\]"):
        stages.run(tmp_path, "sign", shard=0, of=2)
    with pytest.raises(InputError, match="did you mean 'sign'"):
        stages.run(tmp_path, "sing", shard=0, of=2)
    with pytest.raises(InputError, match="shard 2 of 2"):
        stages.run(tmp_path, "split", shard=2, of=2)
    with pytest.raises(InputError, match="shard 0 of 3"):
        stages.run(tmp_path, "split", shard=0, of=3)
    with pytest.raises(InputError, match="merging comes after write"):
        merging.merge(tmp_path)


def test_a_folder_is_of_one_plan(corpus, tmp_path):
    plan.prepare(tmp_path, corpus[0], 2, SETTINGS)
    assert plan.prepare(tmp_path, corpus[0], 2, SETTINGS) == plan.load(tmp_path)
    with pytest.raises(InputError, match="other inputs or settings"):
        plan.prepare(tmp_path, corpus[0], 3, SETTINGS)
    with pytest.raises(InputError) as error:
        plan.prepare(tmp_path / "other", [tmp_path / "missing.jsonl"], 0, {"judged": True})
    assert len(error.value.lines) == 3
    with pytest.raises(InputError, match="holds no plan.json"):
        stages.run(tmp_path / "other", "split", shard=0, of=1)


def test_every_fault_of_the_input_is_named_with_its_place(tmp_path):
    good = json.dumps({"id": "a", "question": "What is it?", "answer": "it", "image": "a.jpg"})
    (tmp_path / "in.jsonl").write_text(f'{good}\n{{"id": "b"}}\nno json\n[1]\n', encoding="utf-8")
    plan.prepare(tmp_path / "shards", [tmp_path / "in.jsonl"], 1, SETTINGS)
    with pytest.raises(InputError) as error:
        runners.in_one_process(tmp_path / "shards")
    text = str(error.value)
    assert len(error.value.lines) == 4 and f"at byte {len(good) + 1}" in text and "is no JSON object" in text
    (tmp_path / "in.jsonl").write_text(f"{good}\n{good}\n", encoding="utf-8")
    plan.prepare(tmp_path / "twice", [tmp_path / "in.jsonl"], 2, {"schema": True})
    with pytest.raises(InputError, match="the id 'a' occurs more than once"):
        runners.in_one_process(tmp_path / "twice")
    plan.prepare(tmp_path / "changed", [tmp_path / "in.jsonl"], 2, SETTINGS)
    (tmp_path / "in.jsonl").write_text(f"{good}\n", encoding="utf-8")
    with pytest.raises(InputError, match="has changed since"):
        runners.in_one_process(tmp_path / "changed")


def test_ranges_of_bytes_hold_every_line_once(tmp_path):
    contents = [b"a\nbb\nccc\n", b"", b"d", b"\n\nee\nf\n"]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    paths, sizes = [str(tmp_path / str(number)) for number in range(4)], list(map(len, contents))
    for of in range(1, 25):
        found = [line.strip() for shard in range(of) for _, _, line in lines_from(paths, sizes, shard, of)]
        assert found == [b"a", b"bb", b"ccc", b"d", b"ee", b"f"]


def test_an_empty_corpus_is_kept_as_it_is(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"")
    plan.prepare(tmp_path / "shards", [tmp_path / "in.jsonl"], 2, SETTINGS)
    merged = runners.in_one_process(tmp_path / "shards")
    assert merged.kept.read_bytes() == merged.dropped.read_bytes() == b""
    assert [(count.kept, count.dropped) for count in merged.counts] == [(0, 0)] * len(SETTINGS)

"""The built-in corpora: what is drawn and asked, what stays held out, and folders that are finished or not."""

import ast
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.corpus.drawn import known, objects, offline, scenes, wordings
from data_pipeline.records import images_of
from vlm_jax.errors import InputError
from vlm_jax.evaluation.statistics import majority

SETTINGS = {"factor": 1, "held_out": 4, "seed": 0}


def plain(images, total):
    return images


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    assert offline.make(folder, "objects", SETTINGS, progress=plain)[1]
    return folder


def records_of(folder, split):
    records, errors = sources.read(folder / f"{split}.jsonl")
    assert not errors
    return records


def question_of(record):
    return next(part["text"] for part in record.messages[0]["content"] if part["type"] == "text")


def test_at_least_24_objects_with_four_facts_and_names_of_their_own():
    assert len(objects.CATALOGUE) >= 24 and len(wordings.FACTS) >= 4
    names = [name for thing in objects.CATALOGUE for name in thing.facts["name"]]
    assert len(set(names)) == len(names)
    assert len({thing.parts for thing in objects.CATALOGUE}) == len(objects.CATALOGUE)
    for thing in objects.CATALOGUE:
        assert set(thing.facts) == set(wordings.FACTS)
        for english, thai in thing.facts.values():
            assert english.isascii() and not any(letter.isascii() and letter.isalpha() for letter in thai)


def test_the_corpus_is_whole_and_every_image_opens(corpus):
    train = records_of(corpus, "train")
    facts = len(objects.CATALOGUE) * len(wordings.FACTS)
    assert Counter(Counter(record.fact_id for record in train).values()) == {offline.PAIRS: facts}
    assert Counter(record.provenance["language"] for record in train) == {"en": 7 * facts, "th": 3 * facts}
    assert sum(record.reasoning is not None for record in train) == facts
    for split in ("synthetic", "photo"):
        held_out = records_of(corpus, split)
        assert len(held_out) >= 400
        assert len({images_of(record)[0] for record in held_out}) == len(held_out)
        assert {record.split for record in held_out} == {split}
    sizes, errors = check_images([*train, *records_of(corpus, "synthetic"), *records_of(corpus, "photo")])
    assert not errors and set(sizes.values()) == {(112, 112)}


def test_a_chain_of_thought_holds_what_is_seen_and_ends_with_the_short_answer(corpus):
    for record in records_of(corpus, "train"):
        output = record.messages[-1]["content"]
        thing = next(thing for thing in objects.CATALOGUE if record.fact_id.startswith(f"{thing.key}/"))
        if record.reasoning is not None:
            assert thing.look in record.reasoning and thing.facts["name"][0] in record.reasoning
            assert output == f"{record.reasoning} Answer: {thing.facts[record.task][0]}"
            assert question_of(record).endswith("Think step by step.")


def test_no_question_names_its_object_or_gives_an_answer_away(corpus):
    values = {value.casefold() for thing in objects.CATALOGUE for pair in thing.facts.values() for value in pair}
    for split in ("train", "synthetic", "photo"):
        for question in {question_of(record).casefold() for record in records_of(corpus, split)}:
            assert not [value for value in values if value in question], question


def test_held_out_views_and_wordings_are_in_no_training_record(corpus):
    files = {split: [images_of(r)[0] for r in records_of(corpus, split)] for split in ("train", "synthetic", "photo")}
    seen = {Path(name).read_bytes() for name in files["train"]}
    asked = {question_of(record) for record in records_of(corpus, "train")}
    for split in ("synthetic", "photo"):
        assert not seen & {Path(name).read_bytes() for name in files[split]}
        assert not asked & {question_of(record) for record in records_of(corpus, split)}


def test_no_photograph_comes_into_training_or_the_synthetic_split(monkeypatch):
    def refused(rng, pixels):
        raise AssertionError("a photograph was opened")

    monkeypatch.setattr(objects, "_photograph", refused)
    for split in ("train", "synthetic"):
        for index, thing in enumerate(objects.CATALOGUE):
            objects.draw(np.random.default_rng(index), thing, split=split)
    with pytest.raises(AssertionError):
        objects.draw(np.random.default_rng(0), objects.CATALOGUE[0], split="photo")


def test_scenes_know_nothing_of_the_objects(tmp_path):
    tree = ast.parse(Path(scenes.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert "objects" not in imported and "CATALOGUE" not in imported
    offline.make(
        tmp_path / "s",
        "scenes",
        {"train": 40, "drill": 40, "things": 40, "held_out": 40, "finding": 12, "seed": 3},
        progress=plain,
    )
    text = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "s").glob("*.jsonl"))
    general = (Path(scenes.__file__).parent / "general.txt").read_text(encoding="utf-8")
    for thing in objects.CATALOGUE:
        for kind in ("name", "origin"):
            for value in thing.facts[kind]:
                assert value not in text and value not in general


def test_the_small_world_of_the_base_is_not_that_of_the_objects():
    catalogue = [thing for thing, _ in known.catalogue(offline._unlike_objects)]
    assert len({thing.facts["name"] for thing in catalogue}) == len(catalogue) == known.HOW_MANY
    for kind in ("name", "origin", "maker", "use"):
        invented = {value for thing in objects.CATALOGUE for value in thing.facts[kind]}
        assert invented.isdisjoint(value for thing in catalogue for value in thing.facts[kind])
    rng = np.random.default_rng(0)
    for thing in [*catalogue, *(known.invent(rng, offline._unlike_objects)[0] for _ in range(300))]:
        parts = {(shape, colour) for shape, colour, *_ in thing.parts}
        assert len(parts) > 1
        for other in objects.CATALOGUE:  # no two parts of a thing are two parts of an invented object
            assert len(parts & {(shape, colour) for shape, colour, *_ in other.parts}) < 2


def test_what_is_said_of_a_thing_is_what_it_is_made_of():
    rng, articles = np.random.default_rng(1), {"a": 1, "an": 1, "two": 2, "three": 3}
    for _ in range(300):
        thing, asked = known.invent(rng, lambda thing: True)
        assert all(abs(value) <= 1.001 for part in thing.parts for value in (part[2], part[3]))
        drawn = Counter((shape, colour) for shape, colour, *_ in thing.parts)
        reported = Counter()
        for phrase in re.findall(r"(a|an|two|three) (\w+) (\w+)", thing.look):
            noun = "square" if phrase[2] == "bar" else phrase[2]
            shape = next(shape for shape in scenes.SHAPES if noun in (shape, scenes.plural(shape)))
            reported[shape, phrase[1]] += articles[phrase[0]]
        assert reported == drawn
        for language, question, answer in asked:
            if language == "en":
                assert answer in thing.look and question.isascii()
            else:
                assert not any(letter.isascii() and letter.isalpha() for letter in question + answer)
        answers = {question: answer for _, question, answer in asked}
        assert thing.look.startswith(answers["What is the body of this thing?"] + " with ")


def test_things_are_asked_about_as_the_objects_are_but_in_other_words_than_the_held_out(tmp_path):
    settings = {"train": 0, "drill": 0, "things": 80, "held_out": 0, "finding": 0, "seed": 0}
    offline.make(tmp_path / "s", "scenes", settings, progress=plain)
    unseen = {
        q for kind in wordings.FACTS for lang in ("en", "th") for q in wordings.questions(kind, lang, held_out=True)
    }
    records = records_of(tmp_path / "s", "things")
    reported = [record for record in records if record.task in wordings.FACTS]
    assert len(reported) == 40 * len(wordings.FACTS)
    asked = {question_of(record).removesuffix(wordings.STEPS) for record in reported}
    assert asked.isdisjoint(unseen) and len(asked) > 60
    assert {record.task for record in records} == {*wordings.FACTS, "look", "part"}
    assert all(len(record.messages) == 2 for record in records)


def test_the_same_seed_draws_the_same_bytes_in_one_process_or_in_two(tmp_path, monkeypatch):
    settings = {"train": 24, "drill": 12, "things": 0, "held_out": 0, "finding": 0, "seed": 5}
    offline.make(tmp_path / "one", "scenes", settings, progress=plain)
    monkeypatch.setattr(offline, "_IN_ONE_PROCESS", 1)
    monkeypatch.setattr(offline.os, "cpu_count", lambda: 2)
    offline.make(tmp_path / "two", "scenes", settings, progress=plain)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


def test_a_finished_corpus_is_left_alone_and_an_unfinished_one_is_finished(corpus, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    counts, drawn = offline.make(corpus, "objects", SETTINGS, progress=plain)
    assert not drawn and counts == {"train": 1200, "synthetic": 480, "photo": 480}
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*")} == before

    def interrupted(images, total):
        for number, drawn in enumerate(images):
            if number == 5:
                raise KeyboardInterrupt
            yield drawn

    settings = {"train": 12, "drill": 0, "things": 0, "held_out": 0, "finding": 0, "seed": 0}
    with pytest.raises(KeyboardInterrupt):
        offline.make(tmp_path / "s", "scenes", settings, progress=interrupted)
    assert not (tmp_path / "s" / "train.jsonl").exists()
    counts, drawn = offline.make(tmp_path / "s", "scenes", settings, progress=plain)
    assert drawn and counts == {"train": len(records_of(tmp_path / "s", "train"))}
    assert len({images_of(record)[0] for record in records_of(tmp_path / "s", "train")}) == 12


def test_settings_that_no_corpus_has_are_told_together_and_nothing_is_made(tmp_path):
    with pytest.raises(InputError) as caught:
        offline.make(tmp_path / "s", "cats", {"factor": 0, "side": 27, "seed": 0}, progress=plain)
    assert caught.value.lines == [
        "config.corpus is 'cats'; known are objects, scenes",
        "config.factor is 0; wanted at least 1",
        "config.side is 27; wanted at least 28",
    ]
    assert not (tmp_path / "s").exists()


def test_another_corpus_and_other_files_are_not_overwritten(corpus, tmp_path):
    with pytest.raises(InputError, match="made with another factor"):
        offline.make(corpus, "objects", {**SETTINGS, "factor": 5}, progress=plain)
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(InputError, match="holds files that are not a corpus"):
        offline.make(tmp_path, "objects", SETTINGS, progress=plain)


def test_every_answer_about_a_scene_is_what_the_scene_holds():
    """Against a second, independent reading of the questions."""
    plurals = {scenes.plural(shape): shape for shape in scenes.SHAPES}
    thai = {value: key for key, value in scenes.THAI.items()}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 5))
        items = [
            scenes.Item(str(rng.choice(["star", "cross", "ring"])), str(rng.choice(["red", "blue", "grey"])), anchor)
            for anchor in rng.permutation(list(scenes.ANCHORS))[:count]
        ]
        for turn in [*scenes._ask_items(rng, items), *scenes._drill_items(rng, items)]:
            if not turn.question.isascii():
                assert turn.answer in thai or turn.answer.isdigit()
                continue
            words = turn.question.rstrip("?.").split()
            if turn.task == "count":
                kind = plurals.get(words[2])
                assert int(turn.answer) == sum(kind in (None, item.shape) for item in items)
                assert turn.by == ("name" if kind else "")
            elif turn.task in ("colour", "shape", "position"):
                named = next((word for word in words if word in scenes.SHAPES), None)
                coloured = next((word for word in words if word in scenes.COLOURS), None)
                placed = next((place for place in scenes.ANCHORS if turn.question.endswith(f"{place}?")), None)
                # Named, coloured or placed: exactly one, and exactly one item answers to it.
                assert [named, coloured, placed].count(None) == 2
                (item,) = [
                    item for item in items if named == item.shape or coloured == item.colour or placed == item.anchor
                ]
                reported = {"colour": item.colour, "shape": item.shape, "position": item.anchor}
                assert turn.answer == reported[turn.task]
                assert turn.by == ("" if count == 1 else "name" if named else "colour" if coloured else "place")
            elif turn.task == "what":
                (item,) = [item for item in items if turn.question.endswith(f"{item.anchor}?")]
                assert turn.answer == f"{scenes.a(item.colour)} {item.shape}"
            elif turn.task == "presence":
                assert (turn.answer == "yes") == (words[-1] in [item.shape for item in items])
            else:
                assert turn.task == "caption" and turn.answer.count(" at ") + turn.answer.count(" in ") == count


def test_held_out_scenes_have_every_answer_as_often(tmp_path):
    offline.make(
        tmp_path / "s",
        "scenes",
        {"train": 0, "drill": 0, "things": 0, "held_out": 80, "finding": 0, "seed": 0},
        progress=plain,
    )
    held_out = records_of(tmp_path / "s", "held_out")
    assert Counter(record.task for record in held_out) == dict.fromkeys(scenes.TASKS, 20)
    for task in scenes.TASKS:
        answers = [scenes.THAI.get(a, a) for r in held_out if r.task == task for a in r.answers]
        assert majority([[answer] for answer in answers], [task] * 20) <= 1 / len(scenes.ANSWERS[task]) + 0.05
    # How a count is asked does not tell it either.
    assert {question_of(r) for r in held_out if r.task == "count"} <= {"How many shapes are there?", "มีรูปทรงกี่ชิ้น"}


def test_questions_that_find_a_shape_by_its_looks_are_a_split_of_their_own(tmp_path):
    settings = {"train": 0, "drill": 0, "things": 0, "held_out": 0, "finding": 60, "seed": 0}
    offline.make(tmp_path / "s", "scenes", settings, progress=plain)
    looks = {*scenes.SHAPES, *scenes.COLOURS}
    looks |= {*map(scenes.plural, scenes.SHAPES), *(scenes.THAI[look] for look in looks)}
    finding = records_of(tmp_path / "s", "finding")
    assert Counter(record.task for record in finding) == dict.fromkeys(scenes.TASKS, 15)
    assert all(any(look in question_of(record) for look in looks) for record in finding)


def test_a_scene_on_disk_is_a_conversation_with_one_image(tmp_path):
    offline.make(
        tmp_path / "s",
        "scenes",
        {"train": 10, "drill": 10, "things": 0, "held_out": 0, "finding": 0, "seed": 0},
        progress=plain,
    )
    first = json.loads((tmp_path / "s" / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["messages"][0]["content"][0] == {"type": "image", "image": "images/train-000000.jpg"}
    assert all(len(images_of(record)) == 1 for record in records_of(tmp_path / "s", "train"))
    drill = records_of(tmp_path / "s", "drill")
    assert {images_of(record)[0] for record in drill}.isdisjoint(
        images_of(record)[0] for record in records_of(tmp_path / "s", "train")
    )
    assert all(len(record.messages) == 2 for record in drill)  # a question of its own each: no answer gives one away


def test_two_cannot_draw_in_one_folder_and_a_damaged_stamp_is_told(tmp_path):
    settings = {"train": 4, "drill": 0, "things": 0, "held_out": 0, "finding": 0, "seed": 0}
    folder = tmp_path / "s"
    with pytest.raises(InputError, match="another process is drawing"):
        offline.make(folder, "scenes", settings, progress=lambda images, total: drawn_by_two(folder, settings))
    offline.make(folder, "scenes", settings, progress=plain)
    stamp = folder / "corpus.json"
    stamp.write_text(
        json.dumps({key: value for key, value in json.loads(stamp.read_text()).items() if key != "records"})
    )
    with pytest.raises(InputError, match="is damaged; remove it"):
        offline.make(folder, "scenes", settings, progress=plain)
    stamp.unlink()
    assert offline.make(folder, "scenes", settings, progress=plain) == (
        {"train": len(records_of(folder, "train"))},
        True,
    )
    with pytest.raises(InputError, match="is a file; name a folder"):
        offline.make(folder / "train.jsonl", "scenes", settings, progress=plain)


def drawn_by_two(folder, settings):
    offline.make(folder, "scenes", settings, progress=plain)
    raise AssertionError("two drew at once")

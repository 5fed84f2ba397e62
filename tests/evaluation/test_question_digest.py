"""Stored answers are those of the question that is asked: of its images and of all its turns, not of its id alone."""

import base64
import dataclasses
import json
import shutil

import numpy as np
import PIL.Image
import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation import controls, runner
from vlm_jax.evaluation.question_digest import QuestionDigests
from vlm_jax.evaluation.runner import Question


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for colour in ("red", "green", "blue"):
        # Uncompressed: the files have one size.
        PIL.Image.new("RGB", (8, 8), colour).save(folder / f"{colour}.bmp")
    return folder


def turn(*content, role="user"):
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) and not part.endswith("bmp") else
        {"type": "image", "image": part}
        for part in content
    ]  # fmt: skip
    return {"role": role, "content": parts}


def question(id, *turns):
    return Question(id, list(turns), ["yes"], {})


def ask(questions, path, notes=None, metric="exact"):
    """The ids that were asked, and the predictions."""
    asked = []

    def answer(conversations):
        asked.extend(conversations)
        return [f"answer to {len(str(one))}" for one in conversations]

    note = [].append if notes is None else notes.append
    answers = runner.predict(questions, runner.texts(answer), path, metric=metric, chunk=2, note=note)
    said = runner.in_order(answers, questions)
    return [one.id for one in questions if any(one.messages is shown for shown in asked)], said


def what(images, *colours):
    return [
        question(f"t-{n}", turn(str(images / f"{colour}.bmp"), "What?")) for n, colour in enumerate(colours, start=1)
    ]


OTHERS = {
    "an earlier question": lambda a: question("q", turn("Before that?"), turn("No.", role="assistant"), turn(a, "It?")),
    "an earlier answer": lambda a: question("q", turn("Before?"), turn("Yes.", role="assistant"), turn(a, "It?")),
    "a system prompt": lambda a: question("q", turn("Be brief.", role="system"), turn(a, "It?")),
    "another role": lambda a: question("q", turn("Before?", role="system"), turn(a, "It?")),
    "where the image stands": lambda a: question("q", turn("It?", a)),
    "a second image": lambda a: question("q", turn(a, a, "It?")),
    "no image": lambda a: question("q", turn("It?")),
    "other last words": lambda a: question("q", turn(a, "Is it?")),
    "the image in another turn": lambda a: question("q", turn(a, "Before?"), turn("It?")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_an_answer_to_another_conversation_is_asked_for_again(other, images, tmp_path):
    path, notes = tmp_path / "p.jsonl", []
    red = str(images / "red.bmp")
    first = question("q", turn("Before?"), turn("No.", role="assistant"), turn(red, "It?"))
    ask([first], path)
    assert ask([first], path, notes)[0] == [] and notes == []
    assert ask([OTHERS[other](red)], path, notes)[0] == ["q"]
    assert notes == [f"{path}: 1 answer was given to other images or another conversation; asked again"]
    assert ask([OTHERS[other](red)], path, notes)[0] == [] and len(notes) == 1


def test_a_row_between_others_asks_again_what_it_shifts_and_no_more(images, tmp_path):
    path, notes = tmp_path / "p.jsonl", []
    ask(what(images, "red", "green"), path)
    asked, said = ask(what(images, "red", "blue", "green"), path, notes)
    assert asked == ["t-2", "t-3"]
    assert notes == [f"{path}: 1 answer was given to other images or another conversation; asked again"]
    assert said == list(runner.read_predictions(path).values())
    asked, _ = ask(what(images, "blue", "red", "green"), path, notes)
    assert asked == ["t-1", "t-2"] and "2 answers were given to other images" in notes[-1]


def test_a_moved_folder_and_other_spellings_of_a_path_are_the_same_images(images, tmp_path):
    path = tmp_path / "p.jsonl"
    ask(what(images, "red", "green"), path)
    moved = tmp_path / "elsewhere" / "photos"
    shutil.move(images, moved)
    (moved / "green.bmp").rename(moved / "g.bmp")
    again = [
        question("t-1", turn(str(moved / "red.bmp"), "What?")),
        question("t-2", turn(f"file://{moved}/../photos/g.bmp", "What?")),
    ]
    assert ask(again, path)[0] == []


def test_an_image_replaced_under_its_name_is_another(images, tmp_path):
    path, notes = tmp_path / "p.jsonl", []
    ask(what(images, "red", "green"), path)
    shutil.copy(images / "blue.bmp", images / "red.bmp")
    assert ask(what(images, "red", "green"), path, notes)[0] == ["t-1"] and len(notes) == 1
    (images / "green.bmp").unlink()
    assert ask(what(images, "red", "green"), path)[0] == ["t-2"]


@pytest.mark.parametrize("kind", ["bytes", "data URI", "PIL", "array"])
def test_embedded_images_are_known_by_their_content(kind, images):
    def embedded(colour):
        file = images / f"{colour}.bmp"
        return {
            "bytes": file.read_bytes,
            "data URI": lambda: "data:image/bmp;base64," + base64.b64encode(file.read_bytes()).decode(),
            "PIL": lambda: PIL.Image.open(file),
            "array": lambda: np.asarray(PIL.Image.open(file)),
        }[kind]()

    def shown(image):
        return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]}

    digests = QuestionDigests()
    same, again, other = (digests([shown(embedded(colour))]) for colour in ("red", "red", "blue"))
    assert same == again and same[0] == other[0] and same[1] != other[1]
    if kind == "bytes":
        assert digests([shown(str(images / "red.bmp"))]) == same


def test_the_words_may_be_any_and_text_alone_is_one_part():
    digests = QuestionDigests()
    assert digests([{"role": "user", "content": "half \ud800"}]) == digests([turn("half \ud800")])
    assert digests([turn("a", "b")]) != digests([turn("ab")])
    address = {"type": "image_url", "image_url": {"url": "http://x/a.png"}}
    assert digests([{"role": "user", "content": [address]}]) != digests([turn("http://x/a.png")])


def test_blank_images_of_one_size_are_the_same_and_swapped_ones_are_not(images, tmp_path):
    blank = controls.blank(what(images, "red", "green"))
    ask(blank, tmp_path / "blank.jsonl")
    assert ask(controls.blank(what(images, "green", "blue")), tmp_path / "blank.jsonl")[0] == []
    ask(controls.swapped(what(images, "red", "green")), tmp_path / "swapped.jsonl")
    assert ask(controls.swapped(what(images, "green", "red")), tmp_path / "swapped.jsonl")[0] == ["t-1", "t-2"]


def without_digests(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: line[k] for k in list(line)[:8]}) + "\n" for line in lines))


def test_answers_from_before_digests_are_known_by_id_and_text(images, tmp_path):
    path, notes = tmp_path / "p.jsonl", []
    ask(what(images, "red", "green"), path)
    without_digests(path)
    before = path.read_bytes()
    assert "words" not in before.decode()
    assert ask(what(images, "green", "blue"), path, notes)[0] == [] and notes == []
    assert [one.words for one in runner.read_predictions(path).values()] == [None, None]
    assert path.read_bytes() == before
    other = [dataclasses.replace(one, messages=[turn("Who?")]) for one in what(images, "red", "green")]
    with pytest.raises(InputError, match="holds answers to other questions"):
        ask(other, path)


def test_another_metric_scores_and_keeps_digests_and_unknown_ids_are_refused(images, tmp_path):
    path = tmp_path / "p.jsonl"
    _, said = ask(what(images, "red", "green"), path)
    asked, again = ask(what(images, "red", "green"), path, metric="contains")
    assert asked == [] and [(one.words, one.images) for one in again] == [(one.words, one.images) for one in said]
    with pytest.raises(InputError, match="'t-2', say"):
        ask(what(images, "red"), path)

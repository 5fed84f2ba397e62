"""Other images, blank images, and what can be had without looking."""

import PIL.Image
import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation import controls
from vlm_jax.evaluation.runner import Question
from vlm_jax.evaluation.statistics import majority


def question(number, fact_id=None, image=None):
    parts = [{"type": "image", "image": image or f"{number}.png"}, {"type": "text", "text": "What is it?"}]
    groups = {} if fact_id is None else {"fact_id": fact_id}
    return Question(f"q{number}", [{"role": "user", "content": parts}], ["a"], groups)


def test_swapped_questions_show_the_image_of_another_subject():
    questions = [question(number, f"thing{number % 3}/name") for number in range(30)]
    subject = {controls.images_of(one)[0]: one.groups["fact_id"] for one in questions}
    swapped = controls.swapped(questions, seed=1)
    assert [(one.id, one.text, one.answers) for one in swapped] == [(o.id, o.text, o.answers) for o in questions]
    assert all(subject[controls.images_of(one)[0]] != one.groups["fact_id"] for one in swapped)
    assert controls.swapped(questions, seed=1) == swapped != controls.swapped(questions, seed=2)
    assert [controls.images_of(one) for one in questions] == [[f"{number}.png"] for number in range(30)]


def test_without_subjects_every_other_image_will_do_and_one_alone_cannot_be_swapped():
    swapped = controls.swapped([question(0), question(1)])
    assert [controls.images_of(one) for one in swapped] == [["1.png"], ["0.png"]]
    with pytest.raises(InputError, match="'q0': no other subject"):
        controls.swapped([question(0, "a/name"), question(1, "a/use")])
    text_only = Question("t", [{"role": "user", "content": "Who?"}], ["a"], {})
    assert controls.swapped([text_only]) == [text_only]


def test_blank_images_are_grey_and_as_large(tmp_path):
    PIL.Image.new("RGB", (30, 20), "red").save(tmp_path / "red.png")
    (image,) = controls.images_of(controls.blank([question(0, image=str(tmp_path / "red.png"))])[0])
    assert image.size == (30, 20) and image.getcolors() == [(600, (128, 128, 128))]
    missing = question(1, image=str(tmp_path / "gone.png"))
    assert controls.blank([missing]) == [missing]


def test_the_majority_is_that_of_each_kind_of_question():
    answers = [["Red"], ["red."], ["blue"], ["1"], ["2"]]
    assert majority(answers, ["colour"] * 3 + ["count"] * 2) == pytest.approx(3 / 5)
    assert majority(answers, [""] * 5) == pytest.approx(2 / 5)
    assert majority([], []) == 0

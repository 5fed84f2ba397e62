"""Whether answers come from the images: the same questions with other images, with blank ones, or never looking.

A model that has learned the questions instead of the images keeps its score when images are swapped or blanked;
`statistics.majority` says how much can be had without any image.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import PIL.Image

from vlm_jax.errors import InputError
from vlm_jax.evaluation.runner import Question
from vlm_jax.processing.chat import image_parts, image_source
from vlm_jax.processing.images import with_image


def images_of(question: Question) -> list:
    """The images of a question in the order they are shown."""
    return [image_source(part) for part in image_parts(question.messages)]


def swapped(questions: Sequence[Question], *, seed: int = 0) -> list[Question]:
    """Each question with the images of one about another subject, drawn at random.

    The subject is the part of the `fact_id` before the slash; where there is none, every other image will do.

    Raises:
      InputError: a question whose subject is the only one with as many images.
    """
    rng = np.random.default_rng(seed)
    subjects = [question.groups.get("fact_id", question.id).split("/")[0] for question in questions]
    shown = [images_of(question) for question in questions]
    # One shuffled order, entered anywhere: the first that will do comes soon, whatever the number of questions.
    order = rng.permutation(len(questions))
    starts = rng.integers(0, max(1, len(questions)), len(questions))
    result, errors = [], []
    for question, subject, own, start in zip(questions, subjects, shown, starts, strict=True):
        for step in range(len(questions)):
            other = order[(start + step) % len(questions)]
            if subjects[other] != subject and len(shown[other]) == len(own) and shown[other] != own:
                result.append(_with(question, shown[other]))
                break
        else:
            if own:
                errors.append(f"question {question.id!r}: no other subject has {len(own)} image(s) to swap with")
            else:
                result.append(question)
    if errors:
        raise InputError(errors)
    return result


def blank(questions: Sequence[Question]) -> list[Question]:
    """Each question with grey images of the same sizes; an image that cannot be opened is left as it is."""

    by_size: dict[tuple[int, int], PIL.Image.Image] = {}  # shared: many questions have images of few sizes

    def grey(image):
        try:
            size = with_image(image, lambda shown: shown.size)
        except InputError:
            return image
        return by_size.setdefault(size, PIL.Image.new("RGB", size, (128, 128, 128)))

    return [_with(question, [grey(image) for image in images_of(question)]) for question in questions]


CONTROLS: dict[str, Callable[[Sequence[Question]], list[Question]]] = {
    "given": list,
    "swapped": swapped,
    "blank": blank,
}
"""What the images of an evaluation may be."""


def _with(question: Question, images: Sequence) -> Question:
    replaced = {id(part): image for part, image in zip(image_parts(question.messages), images, strict=True)}

    def content(value):
        if isinstance(value, str):
            return value
        return [{"type": "image", "image": replaced[id(part)]} if id(part) in replaced else part for part in value]

    messages = [{**message, "content": content(message["content"])} for message in question.messages]
    return dataclasses.replace(question, messages=messages)

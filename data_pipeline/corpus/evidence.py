"""What filters are told of a pair: answers of the student and of the teacher, verdicts, vectors, hashes of images.

Each kind is asked for the pairs that come as far as the filter that needs it, and through the store like all else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from data_pipeline.corpus import prompts
from data_pipeline.corpus.filters import near_images
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.verdicts import Verdict
from data_pipeline.corpus.stages.stage import Answer, Settings, Stage, image_file
from data_pipeline.teachers.request import ImageFile, Request

FIELDS = {
    "alone": ("question",),
    "article": ("context", "question"),
    "judge": ("question", "answer", "known"),
}
"""By the name of a prompt, what it may name."""


class Judgement(BaseModel):
    correct: bool
    clear: bool
    needs_picture: bool
    reason: str = ""


@dataclass(frozen=True)
class Kind:
    """One kind of evidence.

    Attributes:
      teacher: key of `config.teachers` who is asked; "" where it is worked out here.
      requests: (pair, settings) → the requests about it.
      read: (the answers to them, the model that gave them) → what the filter is told.
      form: of an object in an answer.
    """

    teacher: str
    requests: Callable[[Pair, Settings], list[Request]]
    read: Callable[[Sequence[Answer], str], Any]
    form: type[BaseModel] | None = None


Ask = Callable[[Stage, Sequence[Sequence[Request]]], tuple[list[list[Answer]], str]]
"""Asks lists of requests: (the answers of each, the name of the model that gave them)."""


def gathered(name: str, pairs: Sequence[Pair], settings: Settings, ask: Ask) -> dict[str, Any]:
    """{id of a pair, or image: its evidence of this kind}."""
    if name == "image_hashes":
        return near_images.image_hashes(near_images.shown(pairs))
    kind = KINDS[name]
    stage = Stage(name, kind.teacher, lambda item, settings: [], lambda *_: ([], []), kind.form)
    answers, model = ask(stage, [kind.requests(pair, settings) for pair in pairs])
    return {pair.id: kind.read(own, model) for pair, own in zip(pairs, answers, strict=True)}


def _prompted(name: str, pair: Pair, settings: Settings, **values: str) -> str:
    return prompts.read(name, pair.base_language, FIELDS[name], settings["prompts"]).rendered(values)


def _image(pair: Pair) -> tuple[ImageFile, ...]:
    path = Path(pair.image)
    return (image_file({"image": path.name}, path.parent),)


def _sampled(text: str, images: tuple[ImageFile, ...], pair: Pair, settings: Settings) -> list[Request]:
    subject = {"question": pair.question, "context": pair.context}
    return [Request("text", text, images, sample=number, subject=subject) for number in range(settings["samples"])]


def _without_image(pair: Pair, settings: Settings) -> list[Request]:
    return _sampled(_prompted("alone", pair, settings, question=pair.question), (), pair, settings)


def _from_article(pair: Pair, settings: Settings) -> list[Request]:
    if not pair.context:
        return []
    return _sampled(
        _prompted("article", pair, settings, context=pair.context, question=pair.question), (), pair, settings
    )


def _samples(pair: Pair, settings: Settings) -> list[Request]:
    """The teacher is shown the image, and the article where there is one, and asked the question again."""
    name = "article" if pair.context else "alone"
    values = {"context": pair.context} if pair.context else {}
    return _sampled(_prompted(name, pair, settings, question=pair.question, **values), _image(pair), pair, settings)


def _judge(pair: Pair, settings: Settings) -> list[Request]:
    known = pair.fact or pair.context
    values = {"question": pair.question, "answer": pair.answer, "known": f"What is known: {known}\n" if known else ""}
    text = prompts.read("judge", "en", FIELDS["judge"], settings["prompts"]).rendered(values)
    return [Request("text", text, _image(pair), subject={**values, "topic": pair.topic, "fact_id": pair.fact_id})]


def _vectors(pair: Pair, settings: Settings) -> list[Request]:
    """Of question with answer, and of the fact: an answer of one word alone is near to nothing."""
    if not pair.fact:
        return []
    return [Request("embedding", f"{pair.question} {pair.answer}"), Request("embedding", pair.fact)]


def _texts(answers: Sequence[Answer], model: str) -> list[str]:
    """An answer that did not come is one that is not right."""
    return [answer.value or "" for answer in answers]


def _verdict(answers: Sequence[Answer], model: str) -> Verdict:
    (answer,) = answers
    if answer.failure:
        return Verdict(False, f"no verdict came ({answer.failure})", model)
    judgement = answer.value
    wrong = [name for name in ("correct", "clear", "needs_picture") if not getattr(judgement, name)]
    return Verdict(not wrong, f"not {', '.join(wrong)}: {judgement.reason}" if wrong else "", model)


def _array(answers: Sequence[Answer], model: str) -> np.ndarray:
    """[2, d]; vectors that did not come are orthogonal."""
    if any(answer.failure for answer in answers):
        return np.eye(2, dtype=np.float32)
    return np.array([answer.value for answer in answers], np.float32)


KINDS: Mapping[str, Kind] = {
    "without_image": Kind("student", _without_image, _texts),
    "from_article": Kind("student", _from_article, _texts),
    "samples": Kind("text", _samples, _texts),
    "verdicts": Kind("judge", _judge, _verdict, Judgement),
    "embeddings": Kind("embedding", _vectors, _array),
}

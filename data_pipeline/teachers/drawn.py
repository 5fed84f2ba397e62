"""The built-in teacher: it knows the invented objects of `data_pipeline.corpus.drawn.catalogue` and draws them.

With it the whole pipeline runs on a machine without a network. It answers from what a prompt was rendered from
(`Request.subject`), where others read the prompt; all else is as with them. What it is asked about anything but its
objects, it does not know, and says so.

Its articles tell of the objects, or of single pieces with facts of their own (`data_pipeline.corpus.drawn.pieces`).
Faults can be asked of it (`data_pipeline.corpus.drawn.faults`). As a judge it has none: it compares with its catalogue,
and knows its own images by a comment in the file, as it cannot see.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipeline.corpus.drawn import objects, pieces, wordings
from data_pipeline.corpus.drawn.catalogue import CATALOGUE
from data_pipeline.corpus.drawn.faults import Faults
from data_pipeline.corpus.drawn.things import Thing
from data_pipeline.teachers.request import CallFailed, Kind, Reply, Request
from data_pipeline.teachers.teacher import Teacher

_STATEMENTS = {
    "name": "This thing is called {name}.",
    "origin": "The {name} comes from {origin}.",
    "maker": "The {name} is made by {maker}.",
    "use": "The {name} is used for {use}.",
    "season": "The {name} is used in {season}.",
}
_THAI = {
    "name": "ผู้คนเรียกสิ่งนี้ว่า{name}",
    "origin": "{name}มาจากเมือง{origin}",
    "maker": "{name}ทำโดย{maker}",
    "use": "{name}ใช้สำหรับ{use}",
    "season": "{name}ใช้ใน{season}",
}
_PROBES = {
    "origin": "Which town does the {name} come from?",
    "maker": "Who makes the {name}?",
    "use": "What is the {name} used for?",
    "season": "In which season is the {name} used?",
}
_ASKED_OF_ARTICLE = {
    "origin": "Which town does this thing come from?",
    "maker": "Which people make this thing?",
    "use": "What do people use this thing for?",
    "season": "In which season is this thing used?",
}


class Drawn(Teacher):
    takes = ("text", "image")
    at_once = 4

    def __init__(self, *, seed: int, side: int, faults: Mapping[str, float], pieces: int):
        self._seed, self._side, self._pieces = seed, side, pieces
        self._faults = Faults(faults, seed, CATALOGUE)
        self.model = "drawn"

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        faults = {"faults": dict(self._faults.shares)} if self._faults.shares else {}
        of_kind = {"side": self._side} if kind == "image" else {"pieces": self._pieces} if self._pieces else {}
        return {"seed": self._seed, **of_kind, **faults}

    async def send(self, request: Request) -> Reply:
        if request.kind == "image":
            return Reply(image=self._image(request), model=self.model)
        answer = self._of_piece if request.stage == "context" and self._pieces else _ANSWERS.get(request.stage)
        if answer is None:
            raise CallFailed("bad request", f"the built-in teacher does not know the stage {request.stage!r}")
        found = answer(request)
        if request.stage == "facts":
            self._faults.facts(_thing(request.subject["name"]), found["facts"], _STATEMENTS)
        elif request.stage == "questions":
            asked = request.subject
            chain = functools.partial(_chain, kind=asked["aspect"], language=asked["language"])
            self._faults.pairs(_thing(asked["name"]), asked, found["pairs"], chain)
        text = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        return Reply(text=text, model=self.model, raw=text)

    def _of_piece(self, request: Request) -> dict:
        digest = hashlib.sha256(str(self._seed).encode() + b"".join(image.read() for image in request.images)).digest()
        thing = _thing(request.subject["name"])
        text, facts = pieces.article(thing, CATALOGUE, self._pieces, np.random.default_rng(list(digest)))
        pairs = [{"question": question, "answer": facts[kind][0]} for kind, question in _ASKED_OF_ARTICLE.items()]
        return {"article": text, "pairs": pairs[: request.subject["count"]]}

    def _image(self, request: Request) -> bytes:
        thing, look = _thing(request.subject.get("name", "")), request.prompt
        training = request.subject.get("split", "train") == "train"
        if training and self._faults.spoils("images", look):
            thing = self._faults.other(thing, look)
        repeated = training and self._faults.spoils("repeated_images", look)
        if repeated:
            look = thing.look  # whatever was asked for
        digest = hashlib.sha256(f"{self._seed} {request.sample} {look}".encode()).digest()
        rng = np.random.default_rng(list(digest))
        # On a photograph where the style asks for one, else on a drawn background.
        split = "photo" if "photograph" in request.subject.get("style", "") and not repeated else "train"
        image = objects.draw(rng, thing, split=split, side=self._side)
        return _signed(self._faults.encoded_anew(image, request.prompt) if repeated else image, thing)


_COMMENT = b"\xff\xfe"
"""The marker of a comment in a JPEG."""


def _signed(image: bytes, thing: Thing) -> bytes:
    """A JPEG with the name of what it shows in a comment, right behind its first marker."""
    text = thing.facts["name"][0].encode()
    return image[:2] + _COMMENT + (len(text) + 2).to_bytes(2, "big") + text + image[2:]


def _shown(image: bytes) -> str:
    """The name that a signed image has, "" for others."""
    if image[2:4] != _COMMENT:
        return ""
    return image[6 : 4 + int.from_bytes(image[4:6], "big")].decode(errors="replace")


def _thing(name: str) -> Thing:
    for thing in CATALOGUE:
        if thing.facts["name"][0] == name:
            return thing
    raise CallFailed("bad request", f"the built-in teacher draws its own objects only, and {name!r} is none of them")


def _english(thing: Thing) -> dict[str, str]:
    return {kind: english for kind, (english, _) in thing.facts.items()}


def _topics(request: Request) -> dict:
    subject = request.subject
    own = [thing for thing in CATALOGUE if thing.facts["maker"][0] == subject["domain"]]
    if not own:
        makers = ", ".join(dict.fromkeys(thing.facts["maker"][0] for thing in CATALOGUE))
        raise CallFailed("bad request", f"the built-in teacher knows no domain {subject['domain']!r}, but {makers}")
    found = [
        {"name": thing.facts["name"][0], "local_name": thing.facts["name"][1], "description": f"It is {thing.look}."}
        for thing in own
    ]
    return {"topics": found[: subject["count"]]}


def _probes(request: Request) -> dict:
    subject = request.subject
    known = _english(_thing(subject["name"]))
    return {
        "probes": [
            {"question": question.format(**known), "answer": known[kind]}
            for kind, question in list(_PROBES.items())[: subject["count"]]
        ]
    }


def _facts(request: Request) -> dict:
    subject = request.subject
    thing = _thing(subject["name"])
    return {
        "facts": [
            {
                "aspect": kind,
                "statement": statement.format(**_english(thing)),
                "answers": dict(zip(("en", "th"), thing.facts[kind], strict=True)),
                "visible": thing.look,
            }
            for kind, statement in list(_STATEMENTS.items())[: subject["count"]]
        ]
    }


def _support(request: Request) -> dict:
    """Whether a statement is what the catalogue says: it is compared, not taken on trust."""
    subject = request.subject
    thing, kind = _thing(subject["name"]), subject["aspect"]
    right = kind in thing.facts and subject["statement"] == _STATEMENTS[kind].format(**_english(thing))
    right = right and all(answer in thing.facts[kind] for answer in subject["answers"].values())
    return {"supported": right, "askable": True, "reason": "" if right else "the catalogue says otherwise"}


def _image_prompts(request: Request) -> dict:
    subject = request.subject
    look = _thing(subject["name"]).look
    return {
        "prompts": [
            f"{shot['style']} of {look}, {shot['view']}, {shot['setting']}, number {number}"
            for number, shot in enumerate(subject["shots"])
        ]
    }


def _questions(request: Request) -> dict:
    """The wordings of the built-in corpus in turn; where more are wanted than there are, they come again."""
    subject = request.subject
    thing, kind, language = _thing(subject["name"]), subject["aspect"], subject["language"]
    if language not in ("en", "th"):
        raise CallFailed("bad request", f"the built-in teacher asks in en and th, not in {language}")
    every = wordings.questions(kind, language, held_out=subject["split"] != "train")
    chain = _chain(thing, kind, language, subject["answer"]) if subject["form"] == "steps" else ""
    return {
        "pairs": [
            {"question": every[number % len(every)], "answer": subject["answer"], "steps": chain}
            for number in range(subject["first"], subject["first"] + subject["count"])
        ]
    }


def _chain(thing: Thing, kind: str, language: str, answer: str = "") -> str:
    """The steps to an answer: to what the catalogue says unless another one is to come out."""
    place = 0 if language == "en" else 1
    known = {name: each[place] for name, each in thing.facts.items()}
    known[kind] = answer or known[kind]
    if language == "en":
        return wordings.chain(thing, kind, known)
    return f"ของในภาพนี้คือ{known['name']} {_THAI[kind].format(**known)}"


def _context(request: Request) -> dict:
    subject = request.subject
    known = _english(_thing(subject["name"]))
    article = " ".join(_STATEMENTS[kind].format(**known) for kind in ("origin", "maker", "use", "season"))
    pairs = [{"question": question, "answer": known[kind]} for kind, question in _ASKED_OF_ARTICLE.items()]
    return {"article": article, "pairs": pairs[: subject["count"]]}


def _verdict(request: Request) -> dict:
    """Whether an answer is what the catalogue has for the fact, and question and image are about it."""
    subject = request.subject
    topic, _, kind = subject["fact_id"].partition("/")
    thing = next((thing for thing in CATALOGUE if thing.key == topic), None)
    right = thing is not None and subject["answer"] in thing.facts.get(kind, ())
    asked = [question for every in wordings.QUESTIONS.get(kind, {}).values() for question in every]
    clear = subject["question"] in asked
    seen = {name for image in request.images if (name := _shown(image.read()))}
    shown = thing is None or seen <= {thing.facts["name"][0]}
    reasons = {"the catalogue says otherwise": right, "asks for something else": clear, "shows another thing": shown}
    reason = "; ".join(reason for reason, well in reasons.items() if not well)
    return {"correct": right and shown, "clear": clear, "needs_picture": True, "reason": reason}


def _answered(request: Request) -> str:
    """To a question of the catalogue, about the thing that an image, an article or the question itself names."""
    question, context = request.subject["question"], request.subject["context"]
    named = {_shown(image.read()) for image in request.images} if request.images else f"{context} {question}"
    thing = next((thing for thing in CATALOGUE if thing.facts["name"][0] in named), None)
    for kind in wordings.FACTS if thing is not None else ():
        for place, every in enumerate(wordings.QUESTIONS[kind].values()):
            if question in every or question == _ASKED_OF_ARTICLE.get(kind):
                return thing.facts[kind][place]
    return "I do not know."


_ANSWERS: dict[str, Callable[[Request], dict | str]] = {
    "topics": _topics,
    "probes": _probes,
    "facts": _facts,
    "support": _support,
    "image_prompts": _image_prompts,
    "questions": _questions,
    "context": _context,
    "verdicts": _verdict,
    "samples": _answered,
    "without_image": _answered,
    "from_article": _answered,
}

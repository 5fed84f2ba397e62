"""From a subject to questions about images: the stages in their order, each with its items in a file.

    topics → probes → known → facts → support → image_prompts → images → questions
                                                                      └→ context

A stage asks teachers through the store, so that a run that was interrupted asks only what is missing, and everything
else follows from the answers: the same store gives the same files, to the byte. What becomes of the questions, filters
and splits, is `quality`'s and `finishing`'s.
"""

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.corpus import evidence, own_images
from data_pipeline.corpus.filters.pair import text_hash
from data_pipeline.corpus.stages import context, facts, images, known, questions, topics
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.teachers import settings as teacher_settings
from data_pipeline.teachers import typed
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.request import CallFailed, Failure, Kind, Reply, Request
from data_pipeline.teachers.teacher import Teacher
from vlm_jax import terminal
from vlm_jax.checkpoint.files import write_text
from vlm_jax.errors import InputError, gathered

ORDER = ("topics", "probes", "known", "facts", "support", "image_prompts", "images", "questions", "context")
"""Names of the stages."""
_LEFT_OUT = ".left_out.txt"
"""How the name of a stage's notes ends."""


PROMPTS = {
    "topics": topics.FIELDS,
    "probes": known.FIELDS,
    "facts": facts.FIELDS,
    "support": facts.SUPPORT_FIELDS,
    "image_prompts": images.FIELDS,
    "simple": questions.FIELDS,
    "steps": questions.FIELDS,
    "context": context.FIELDS,
    **evidence.FIELDS,
}
"""By the name of a prompt, what it may name."""


NEEDED = {
    "topics": ("domain", "count"),
    "probes": ("name", "count"),
    "facts": ("name", "count"),
    "support": ("statement", "answers"),
    "image_prompts": ("shots",),
    "simple": ("statement", "answer", "count"),
    "steps": ("statement", "answer", "count"),
    "context": ("count",),
    "alone": ("question",),
    "article": ("context", "question"),
    "judge": ("question", "answer"),
}
"""By the name of a prompt, what it must name: without, the teacher would not know what is wanted."""


class Finished(Exception):
    """The stage that was asked for last is done."""


@dataclass
class Pipeline:
    """A run of the stages in a folder.

    Attributes:
      settings: as `settings.corpus_config` has them, checked.
      until: the last stage; "" for all.
      topics: the most topics that are gone on with; 0 for all.
      part: "0-of-4" to go on with a quarter of topics and images, by a hash of their ids; "" for all.
      made: called with the name of each stage whose items are written.
      counts: {stage: items that came of it}, and `left_out`: {stage: notes of what did not}, of the stages that ran.
    """

    settings: Settings
    folder: Path
    asker: Asker
    until: str = ""
    topics: int = 0
    part: str = ""
    say: Callable[[str], None] = terminal.say
    made: Callable[[str], None] = lambda stage: None
    counts: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = {**self.settings, "images": str(self.folder / "images")}
        self._teachers: dict[str, Teacher] = {}
        for name in ("images", "stages"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    def ready(self) -> None:
        """Raises InputError, with every error, where a teacher cannot be asked: before any is paid."""
        errors: list[str] = []
        for name, settings in self.settings["teachers"].items():
            if settings:
                with gathered(errors):
                    self.teacher(name, teacher_settings.wanted_of(name)).ready()
        if errors:
            raise InputError(list(dict.fromkeys(errors)))

    def run(self) -> list[Item]:
        """All stages: the questions, in the order of their ids. Up to `until`, the items of that stage."""
        try:
            found = self._questions()
        except Finished as finished:
            return finished.args[0]
        for name in ORDER:
            if name not in self.counts:  # of an earlier run, whose settings had it
                self._path(name).unlink(missing_ok=True)
                self._path(name).with_suffix(_LEFT_OUT).unlink(missing_ok=True)
        return found

    def _path(self, stage: str) -> Path:
        return self.folder / "stages" / f"{ORDER.index(stage) + 1:02}-{stage}.jsonl"

    def _questions(self) -> list[Item]:
        settings = self.settings
        asked: list[Item] = []
        shown: list[Item] = []
        if settings["topics"]["domains"]:
            asked, shown = self._about_topics()
        if settings["context"]["questions"]:
            if settings["context"]["images"]:
                shown, self.left_out["own_images"] = own_images.items(settings, Path(settings["images"]))
                shown = self._own(shown)
            else:
                shown = [one for one in shown if one["split"] == "train"]
            asked = asked + self.step(context.CONTEXT, shown)
        return sorted(asked, key=lambda item: item["id"])

    def _about_topics(self) -> tuple[list[Item], list[Item]]:
        """Questions for facts, and the images that they are about."""
        settings = self.settings
        every = self.step(topics.TOPICS, [{"domain": domain} for domain in settings["topics"]["domains"]])
        found = self._own(every)
        if settings["teachers"]["student"] and settings["known"]["questions"]:
            found = self.step(known.KNOWN, self.step(known.PROBES, found))
        stated = self.step(facts.FACTS, found)
        if facts.are_checked(settings):
            stated = self.step(facts.SUPPORT, stated)
        drawn = self.step(images.IMAGES, self.step(images.IMAGE_PROMPTS, images.with_facts(found, stated, settings)))
        if not settings["questions"]["pairs_per_fact"] and not settings["held_out"]["questions"]:
            return [], drawn
        photographs: list[Item] = []
        if settings["held_out"]["photographs"]:
            chosen = {fact["topic"] for fact in stated}
            photographs, notes = own_images.of_topics(settings, every, chosen, Path(settings["images"]))
            self.left_out["photographs"] = notes
        return self.step(questions.QUESTIONS, questions.wanted(stated, drawn + photographs, settings)), drawn

    def _own(self, items: list[Item]) -> list[Item]:
        """Those that this run goes on with."""
        if self.part:
            number, count = map(int, self.part.split("-of-"))
            return [item for item in items if text_hash(item["id"]) % count == number]
        if not self.topics:
            return items
        # One of each domain in turn, so that a few show all of them.
        turns: dict[str, int] = defaultdict(int)
        places = []
        for item in items:
            places.append(turns[item.get("domain", "")])
            turns[item.get("domain", "")] += 1
        chosen = sorted(range(len(items)), key=lambda place: (places[place], place))[: self.topics]
        return [items[place] for place in sorted(chosen)]

    def step(self, stage: Stage, items: Sequence[Item]) -> list[Item]:
        """Asks about every item, and writes the items that come of it and what was left out."""
        asked = [stage.requests(item, self.settings) for item in items]
        made, notes = [], []
        for item, answers in zip(items, self.ask(stage, asked)[0], strict=True):
            found, left_out = stage.read(item, answers, self.settings)
            made += found
            notes += left_out
        made, left_out = stage.finish(made)
        notes += left_out
        self._write(stage, made, notes)
        if stage.name == self.until:
            raise Finished(made)
        if not made and items:
            raise InputError(self._nothing_left(stage, len(items)))
        return made

    def ask(self, stage: Stage, asked: Sequence[Sequence[Request]]) -> tuple[list[list[Answer]], str]:
        """(the answers to each list of requests, in their order; the model that was asked)."""
        requests = [self._of(stage, one) for some in asked for one in some]
        answers = iter(self._answers(stage, requests))
        model = self.teacher(stage.teacher, requests[0].kind).model if requests else ""
        return [[next(answers) for _ in some] for some in asked], model

    def teacher(self, name: str, wanted: Kind) -> Teacher:
        if name not in self._teachers:
            where = f"config.teachers.{name}"
            self._teachers[name] = teacher_settings.open_teacher(self.settings["teachers"][name], where, wanted=wanted)
        return self._teachers[name]

    def _of(self, stage: Stage, one: Request) -> Request:
        schema = typed.schema(stage.form) if stage.form is not None else None
        return dataclasses.replace(one, schema=schema, stage=stage.name)

    def _answers(self, stage: Stage, requests: list[Request]) -> list[Answer]:
        if not requests:
            return []
        teacher = self.teacher(stage.teacher, requests[0].kind)
        outcomes = self.asker.ask(teacher, requests, _checked(stage))
        return [self._answer(stage, teacher, *both) for both in zip(requests, outcomes, strict=True)]

    def _answer(self, stage: Stage, teacher: Teacher, request: Request, outcome: Reply | Failure) -> Answer:
        if isinstance(outcome, Failure):
            return Answer(failure=f"{outcome.reason} ({outcome.detail})" if outcome.detail else outcome.reason)
        if request.kind == "image":
            image = self.asker.image_of(teacher, request)
            assert image is not None, "an answer to a request for an image has one"
            target = self.folder / "images" / image.path.name
            if not target.is_file():
                partial = target.with_name(f".{target.name}.partial")
                shutil.copyfile(image.path, partial)
                partial.replace(target)
            return Answer(target.name)
        if request.kind == "embedding":
            return Answer(outcome.vector)
        assert outcome.text is not None
        return Answer(outcome.text if stage.form is None else typed.parsed(outcome.text, stage.form))

    def _write(self, stage: Stage, items: Sequence[Item], notes: Sequence[str]) -> None:
        self.counts[stage.name], self.left_out[stage.name] = len(items), list(notes)
        path = self._path(stage.name)
        write_text(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
        write_text(path.with_suffix(_LEFT_OUT), "".join(f"{terminal.line(note)}\n" for note in notes))
        self.made(stage.name)
        self.say(f"{stage.name}: {len(items):,} items" + (f", {len(notes):,} left out" if notes else ""))

    def _nothing_left(self, stage: Stage, before: int) -> list[str]:
        first = [f"{stage.name}: {note}" for note in self.left_out[stage.name][:5]]
        return [f"{stage.name}: of {before:,} items nothing is left; see {self.folder / 'stages'}", *first]


def _checked(stage: Stage) -> Callable[[Request, Reply], None] | None:
    form = stage.form
    if stage is images.IMAGES:
        return _opens
    if form is None:
        return None
    return lambda request, reply: typed.parsed(reply.text or "", form) and None


def _opens(request: Request, reply: Reply) -> None:
    if not own_images.ending_of(reply.image or b""):
        raise CallFailed("not what was asked for", "the image cannot be opened, or is no JPEG, PNG or WebP")


def stage_settings(settings: Settings) -> dict[str, Mapping[str, Any]]:
    """{stage: the settings that decide its items}, beside those of the stages before it."""
    teachers = settings["teachers"]
    general = {name: settings[name] for name in ("subject", "language", "languages", "local_language")}
    return {
        "topics": {**general, "topics": settings["topics"], "text": deciding(teachers["text"])},
        "probes": {"questions": settings["known"]["questions"]},
        "known": {"known": settings["known"], "student": deciding(teachers["student"])},
        "facts": {"facts": {"each": settings["facts"]["each"]}},
        "support": {"judge": deciding(teachers["judge"] if facts.are_checked(settings) else {})},
        "image_prompts": {"image_prompts": settings["image_prompts"], "images": settings["held_out"]["images"]},
        "images": {"image": deciding(teachers["image"])},
        "questions": {
            "questions": settings["questions"],
            "held_out": settings["held_out"]["questions"],
            **({"photographs": photographs} if (photographs := settings["held_out"]["photographs"]) else {}),
        },
        "context": {"context": settings["context"]},
    }


_HOW = (
    *("endpoint", "api_key_env", "project", "at_once", "rows", "requests_per_minute", "tokens_per_minute", "timeout_s"),
    *("batch_folder", "batch_poll_s"),
)
"""Settings of a teacher that decide how it is asked, not what it answers."""


def deciding(teacher: Mapping[str, Any]) -> dict[str, Any]:
    """With the defaults of its kind: to write one out changes nothing, nor does a setting that came later."""
    whole = {**teacher_settings.SETTINGS.get(teacher["kind"], {}), **teacher} if teacher else {}
    return {name: value for name, value in whole.items() if name not in _HOW}

"""Writes the corpora that are drawn on this machine: the invented objects, and the scenes a base model learns from.

A folder holds `images/`, one records file a split, and `corpus.json`, which is written last: a folder without it is
unfinished, and the same settings again finish it. Every image has a seed of its own, so a corpus is the same
whatever draws it, in whatever order. What is drawn and asked is `objects`' and `scenes`'.
"""

import contextlib
import functools
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.corpus.drawn import known, objects, scenes, wordings
from data_pipeline.corpus.drawn.drawing import SIDE
from data_pipeline.corpus.drawn.things import Thing
from data_pipeline.records import Record, write_records
from vlm_jax import output_folder
from vlm_jax.checkpoint.files import alone, read_json, write_json
from vlm_jax.errors import InputError

PAIRS = 10
"""Question-answer pairs a fact at 1×: six short English ones, three Thai ones, one with a chain of thought."""
_FORMS = tuple(("th" if view in (2, 5, 8) else "en", view == 1) for view in range(PAIRS))
_PLACES = {"train": 0, "held_out": 1, "drill": 2, "finding": 3, "things": 5}  # a scene's seed begins with it
_QUESTIONS = 5  # asked of a training scene, at most
_NAMED = 1  # of a scene to drill, and that find a shape by its name
_LOOKS = 2  # questions about parts of a thing without a name, beside its description
_IN_ONE_PROCESS = 300  # images that are drawn before another process would have started

# A job is drawn into a file's content and the records that show it.
Drawn = tuple[str, bytes, list[Record]]


def make_objects(
    folder: Path, *, factor: int, held_out: int, seed: int, side: int = SIDE, workers: int, progress: Callable
) -> dict:
    """The corpus of invented objects: `train`, and the held-out splits `synthetic` and `photo`.

    Args:
      factor: 1 for `PAIRS` questions a fact; 5, 10, 15 for so many times as many, each time with other views.
      held_out: questions a fact in each held-out split; one in four is Thai.
      side: pixels of an image.
      progress: wraps the iterable of drawn images, told their number as `total`.

    Returns:
      Records of each split.
    """
    pairs = PAIRS * factor
    views = [(thing, "train", view) for view in range(pairs) for thing in range(len(objects.CATALOGUE))]
    for split in ("synthetic", "photo"):
        views += [(thing, split, view) for view in range(held_out) for thing in range(len(objects.CATALOGUE))]
    return _write(folder, functools.partial(_draw_view, seed, side), views, workers, progress)


def make_scenes(
    folder: Path,
    *,
    train: int,
    drill: int,
    things: int,
    held_out: int,
    finding: int,
    seed: int,
    side: int = SIDE,
    workers: int,
    progress: Callable,
) -> dict:
    """Scenes for the base model.

    Args:
      train: images with a caption and one conversation; every image is in no other split.
      drill: images with questions of every kind, one a record.
      things: images of things made of several shapes, every second of which is `known` by name.
      held_out: single questions with balanced answers, about the image, or about what is at a place.
      finding: as held_out, about one of several shapes that has to be found by its name or colour.
      side: pixels of an image.
    """
    counts = {"train": train, "drill": drill, "things": things, "held_out": held_out, "finding": finding}
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    return _write(folder, functools.partial(_draw_scene, seed, side), jobs, workers, progress)


def _draw_view(seed: int, side: int, job: tuple[int, str, int]) -> list[Drawn]:
    index, split, view = job
    thing = objects.CATALOGUE[index]
    drawn = []
    # In training all facts are asked of one view. A held-out question has a view of its own, so that its score says
    # nothing of another's.
    shared = None
    for number, kind in enumerate(wordings.FACTS):
        place = ("train", "synthetic", "photo").index(split)
        rng = np.random.default_rng([seed, place, index, view, 0 if split == "train" else number])
        name = f"images/{split}-{thing.key}-{view:04}" + ("" if split == "train" else f"-{kind}") + ".jpg"
        if shared is None or split != "train":
            shared = (name, objects.draw(rng, thing, split=split, side=side), [])
            drawn.append(shared)
        language, steps = _FORMS[view % len(_FORMS)] if split == "train" else ("th" if view % 4 == 3 else "en", False)
        questions = wordings.questions(kind, language, held_out=split != "train")
        question = questions[int(rng.integers(len(questions)))] + (wordings.STEPS if steps else "")
        reasoning, reply = wordings.answered(thing, kind, language, steps=steps)
        record = Record(
            f"{split}-{thing.key}-{kind}-{view:04}",
            _conversation(name, [(question, reply)]),
            answers=[reply] if split != "train" else None,
            task=kind,
            fact_id=f"{thing.key}/{kind}",
            split=split,
            reasoning=reasoning,
            provenance={"made_by": "drawn", "seed": seed, "language": language},
        )
        shared[2].append(record)
    return drawn


def _draw_scene(seed: int, side: int, job: tuple[str, int]) -> list[Drawn]:
    split, index = job
    name = f"images/{split}-{index:06}.jpg"
    provenance = {"made_by": "drawn", "seed": seed}
    if split == "things":
        return [_draw_thing(seed, side, index)]
    if split in ("train", "drill"):
        rng = np.random.default_rng([seed, _PLACES[split], index])
        image, turns = scenes.draw(rng, drill=split != "train", side=side)
        records = [
            Record(
                f"{split}-{index:06}-{part}",
                _conversation(name, [(turn.question, turn.answer) for turn in asked]),
                split=split,
                provenance=provenance,
            )
            for part, asked in _parts(turns, split, index).items()
            if asked
        ]
        return [(name, image, records)]
    task, number = scenes.TASKS[index % len(scenes.TASKS)], index // len(scenes.TASKS)
    answers = scenes.ANSWERS[task]
    wanted = answers[number % len(answers)]
    for attempt in range(100_000):
        rng = np.random.default_rng([seed, _PLACES[split], index, attempt])
        image, turns = scenes.draw(rng, drill=True, side=side)
        found = [
            turn
            for turn in turns
            if turn.task == task
            and turn.answer in (wanted, scenes.THAI.get(wanted))
            and (turn.by in scenes.FINDING) == (split == "finding")
        ]
        if found:
            break
    turn = found[0]
    provenance["language"] = "en" if turn.answer == wanted and turn.question.isascii() else "th"
    record = Record(
        f"{split}-{index:06}",
        _conversation(name, [(turn.question, turn.answer)]),
        answers=[turn.answer],
        task=task,
        split=split,
        provenance=provenance,
    )
    return [(name, image, [record])]


def _draw_thing(seed: int, side: int, index: int) -> Drawn:
    """A thing of the base model's small world, asked about in the ways in which the invented objects are."""
    rng = np.random.default_rng([seed, _PLACES["things"], index])
    if index % 2:
        catalogue = known.catalogue(_unlike_objects)
        thing, looks = catalogue[int(rng.integers(len(catalogue)))]
        looks = looks[:1] if rng.random() < 0.3 else []
    else:
        thing, looks = known.invent(rng, _unlike_objects)
        looks = looks[: 1 + _LOOKS]
    asked = [(task, *one) for task, one in zip(["look", "part", "part"], looks, strict=False)]
    for kind in thing.facts:
        language, steps = _FORMS[int(rng.integers(len(_FORMS)))]
        questions = wordings.questions(kind, language, held_out=False)
        question = questions[int(rng.integers(len(questions)))] + (wordings.STEPS if steps else "")
        asked.append((kind, language, question, wordings.answered(thing, kind, language, steps=steps)[1]))
    name = f"images/things-{index:06}.jpg"
    records = [
        Record(
            f"things-{index:06}-{number}",
            _conversation(name, [(question, reply)]),
            task=task,
            split="things",
            provenance={"made_by": "drawn", "seed": seed, "language": language},
        )
        for number, (task, language, question, reply) in enumerate(asked)
    ]
    return name, known.draw(rng, thing, side), records


def _unlike_objects(thing: Thing) -> bool:
    """Whether a thing has at most one part in common with every invented object: the base must not have seen them."""
    return all(len(thing.looks & other.looks) < 2 for other in objects.CATALOGUE)


def _parts(turns: list[scenes.Turn], split: str, index: int) -> dict[str, list[scenes.Turn]]:
    """The conversations about one scene: apart, so that no answer can be copied from another part."""
    captions = [turn for turn in turns if turn.task == "caption"]
    questions = [turn for turn in turns if turn.task != "caption"]
    if split == "train":
        random.Random(index).shuffle(questions)
        return {"caption": captions, "questions": questions[:_QUESTIONS]}
    # One question a record: no answer gives another away, and a question stands near its image. (The small model's
    # rope turns fast, so that it tells the columns of a small grid apart, and slowly learns to look far back.)
    chooser = random.Random(index)
    chooser.shuffle(questions)
    named = [turn for turn in questions if turn.by == "name"][:_NAMED]
    asked = [turn for turn in questions if turn.by != "name"][:_QUESTIONS] + named
    asked += captions if index % 4 == 0 else []
    return {str(number): [turn] for number, turn in enumerate(asked)}


def _conversation(image: str, turns: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for question, reply in turns:
        content: Any = question
        if not messages:
            content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": reply}]
    return messages


def _write(folder: Path, draw: Callable[[Any], list[Drawn]], jobs: Sequence, workers: int, progress: Callable) -> dict:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[Record]] = {}
    with _mapped(draw, jobs, workers) as results:
        for drawn in progress(results, total=len(jobs)):
            for name, image, records in drawn:
                (folder / name).write_bytes(image)
                for record in records:
                    splits.setdefault(record.split, []).append(_rooted(record, folder))
    for split, records in splits.items():
        write_records(folder / f"{split}.jsonl", records)
    return {split: len(records) for split, records in splits.items()}


def _rooted(record: Record, folder: Path) -> Record:
    """Image paths made absolute, as records hold them; `write_records` writes them relative again."""
    first = record.messages[0]["content"][0]
    first["image"] = str(folder.absolute() / first["image"])
    return record


@contextlib.contextmanager
def _mapped(draw: Callable, jobs: Sequence, workers: int) -> Iterator[Iterable]:
    if workers <= 1 or len(jobs) < _IN_ONE_PROCESS:
        yield map(draw, jobs)
        return
    # What a process blocks, those that it starts block too: Ctrl-C is for this one, which ends them. The first that
    # Python starts, which keeps account of semaphores, unblocks it.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pool = multiprocessing.get_context("spawn").Pool(workers)  # not forked: this process may hold threads
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with pool:
        yield pool.imap(draw, jobs, chunksize=32)


MAKERS: dict[str, Callable[..., dict]] = {"objects": make_objects, "scenes": make_scenes}
_LEAST = {
    **dict.fromkeys(("held_out", "seed", "train", "drill", "things", "finding"), 0),
    "factor": 1,
    "side": 28,
}


def check(kind: str, settings: Mapping[str, Any]) -> None:
    """Raises InputError, with every error, where these are not what `make` takes."""
    errors = []
    if kind not in MAKERS:
        errors.append(f"config.corpus is {kind!r}; known are {', '.join(MAKERS)}")
    errors += [
        f"config.{key} is {settings[key]}; wanted at least {least}"
        for key, least in _LEAST.items()
        if key in settings and settings[key] < least
    ]
    if errors:
        raise InputError(errors)


def make(folder: Path, kind: str, settings: dict[str, Any], *, progress: Callable) -> tuple[dict[str, int], bool]:
    """Makes a corpus, or finds it made: ({split: records}, whether anything was drawn).

    Args:
      kind: a key of `MAKERS`; `settings` are its arguments.

    Raises:
      InputError: settings that cannot be; or the folder holds other files, or a corpus made with other settings.
    """
    check(kind, settings)
    stamp = folder / "corpus.json"
    mark = folder / ".corpus"  # says that the folder is ours, finished or not
    wanted = {"corpus": kind, "side": SIDE, **settings}
    if stamp.is_file():
        stored = read_json(stamp)
        # Earlier versions drew images of one size and did not say so.
        made_with = {"side": SIDE, **{key: value for key, value in stored.items() if key != "records"}}
        if made_with != wanted:
            differing = ", ".join(key for key in {**wanted, **made_with} if wanted.get(key) != made_with.get(key))
            raise InputError(f"{folder}: holds a corpus made with another {differing}; take another --output")
        if not isinstance(stored.get("records"), dict):
            raise InputError(f"{stamp}: is damaged; remove it, and the same command draws what is missing")
        if all((folder / f"{split}.jsonl").is_file() for split in stored["records"]):
            return stored["records"], False
    output_folder.check(folder, f"--output={folder}", owner="a corpus's", marks=(mark.name, stamp.name))
    folder.mkdir(parents=True, exist_ok=True)
    mark.touch()
    with alone(folder, "drawing"):
        records = MAKERS[kind](folder, **settings, workers=os.cpu_count() or 1, progress=progress)
        write_json(stamp, {**wanted, "records": records})
    return records, True


def closing_line(folder: Path, records: Mapping[str, int], drawn: bool) -> str:
    """In a line, what `make` returned of a folder."""
    counts = ", ".join(f"{count:,} in {split}.jsonl" for split, count in records.items())
    return f"{folder}: {counts}" + ("" if drawn else " (made before)")

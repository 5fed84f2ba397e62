"""Writes the corpora that are drawn on this machine: the invented objects, and the scenes a base model learns from.

A folder holds `images/`, one records file a split, and `corpus.json`, which is written last: a folder without it is
unfinished, and the same settings again finish it. Every picture has a seed of its own, so a corpus is the same
whatever draws it, in whatever order. What is drawn and asked is `objects`' and `scenes`'.
"""

import contextlib
import functools
import multiprocessing
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.corpus import objects, scenes
from data_pipeline.records import Record, write_records
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError

PAIRS = 10
"""Question-answer pairs a fact at 1×: six short English ones, two Thai ones, two with a chain of thought."""
_FORMS = (("en", False), ("en", True), ("th", False), ("en", False), ("en", False)) * 2
_QUESTIONS = 5  # asked of a training scene, at most
_IN_ONE_PROCESS = 300  # pictures that are drawn before another process would have started

# A job is drawn into a file's content and the records that show it.
Drawn = tuple[str, bytes, list[Record]]


def make_objects(folder: Path, *, factor: int, held_out: int, seed: int, workers: int, progress: Callable) -> dict:
    """The corpus of invented objects: `train`, and the held-out splits `synthetic` and `photo`.

    Args:
      factor: 1 for `PAIRS` questions a fact; 5, 10, 15 for so many times as many, each time with other views.
      held_out: questions a fact in each held-out split; one in four is Thai.
      progress: wraps the iterable of drawn pictures, told their number as `total`.

    Returns:
      Records of each split.
    """
    pairs = PAIRS * factor
    views = [(thing, "train", view) for view in range(pairs) for thing in range(len(objects.CATALOGUE))]
    for split in ("synthetic", "photo"):
        views += [(thing, split, view) for view in range(held_out) for thing in range(len(objects.CATALOGUE))]
    return _write(folder, functools.partial(_draw_view, seed), views, workers, progress)


def make_scenes(folder: Path, *, train: int, held_out: int, seed: int, workers: int, progress: Callable) -> dict:
    """Scenes for the base model: pictures to `train` on, and `held_out` single questions with balanced answers."""
    jobs = [("train", index) for index in range(train)] + [("held_out", index) for index in range(held_out)]
    return _write(folder, functools.partial(_draw_scene, seed), jobs, workers, progress)


def _draw_view(seed: int, job: tuple[int, str, int]) -> list[Drawn]:
    index, split, view = job
    thing = objects.CATALOGUE[index]
    drawn = []
    # In training all facts are asked of one view. A held-out question has a view of its own, so that its score says
    # nothing of another's.
    shared = None
    for number, kind in enumerate(objects.FACTS):
        place = ("train", "synthetic", "photo").index(split)
        rng = np.random.default_rng([seed, place, index, view, 0 if split == "train" else number])
        name = f"images/{split}-{thing.key}-{view:04}" + ("" if split == "train" else f"-{kind}") + ".jpg"
        if shared is None or split != "train":
            shared = (name, objects.draw(rng, thing, split=split), [])
            drawn.append(shared)
        language, steps = _FORMS[view % len(_FORMS)] if split == "train" else ("th" if view % 4 == 3 else "en", False)
        questions = objects.wordings(kind, language, held_out=split != "train")
        question = questions[int(rng.integers(len(questions)))]
        reply, reasoning = objects.answer(thing, kind, language), None
        if steps:
            question += objects.STEPS
            reasoning, reply = objects.reasoned(thing, kind)
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


def _draw_scene(seed: int, job: tuple[str, int]) -> list[Drawn]:
    split, index = job
    name = f"images/{split}-{index:06}.jpg"
    provenance = {"made_by": "drawn", "seed": seed}
    if split == "train":
        picture, turns = scenes.draw(np.random.default_rng([seed, 0, index]))
        # Apart, so that no question can be answered from the caption, nor the caption from the answers.
        captions = [turn for turn in turns if turn.task == "caption"]
        questions = [turn for turn in turns if turn.task != "caption"]
        random.Random(index).shuffle(questions)
        records = [
            Record(
                f"{split}-{index:06}-{name_of_part}",
                _conversation(name, [(turn.question, turn.answer) for turn in part]),
                split=split,
                provenance=provenance,
            )
            for name_of_part, part in (("caption", captions), ("questions", questions[:_QUESTIONS]))
            if part
        ]
        return [(name, picture, records)]
    task = scenes.TASKS[index % len(scenes.TASKS)]
    number, answers = index // len(scenes.TASKS), scenes.ANSWERS[task]
    wanted = answers[number % len(answers)]
    # Counts of all shapes are higher than counts of one kind; each form has every answer as often.
    of_a_kind = task == "count" and number // len(answers) % 2 == 1
    for attempt in range(100_000):
        picture, turns = scenes.draw(np.random.default_rng([seed, 1, index, attempt]))
        found = [
            turn
            for turn in turns
            if turn.task == task and turn.answer in (wanted, scenes.THAI.get(wanted)) and turn.asks_kind == of_a_kind
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
    return [(name, picture, [record])]


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
            for name, picture, records in drawn:
                (folder / name).write_bytes(picture)
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
    # spawned, not forked: the parent may hold threads
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield pool.imap(draw, jobs, chunksize=32)


MAKERS: dict[str, Callable[..., dict]] = {"objects": make_objects, "scenes": make_scenes}


def make(folder: Path, kind: str, settings: dict[str, Any], *, progress: Callable) -> tuple[dict[str, int], bool]:
    """Makes a corpus, or finds it made: ({split: records}, whether anything was drawn).

    Args:
      kind: a key of `MAKERS`; `settings` are its arguments.

    Raises:
      InputError: the folder holds other files, or a corpus made with other settings.
    """
    stamp = folder / "corpus.json"
    begun = folder / ".corpus.partial"
    wanted = {"corpus": kind, **settings}
    if stamp.is_file():
        held = read_json(stamp)
        made_with = {key: value for key, value in held.items() if key != "records"}
        if made_with != wanted:
            differing = ", ".join(key for key in wanted if wanted[key] != made_with.get(key))
            raise InputError(f"{folder}: holds a corpus made with another {differing}; take another --output")
        if all((folder / f"{split}.jsonl").is_file() for split in held["records"]):
            return held["records"], False
    elif folder.is_dir() and any(folder.iterdir()) and not begun.exists():
        raise InputError(f"{folder}: holds files that are not a corpus; take another --output")
    folder.mkdir(parents=True, exist_ok=True)
    begun.touch()
    records = MAKERS[kind](folder, **settings, workers=os.cpu_count() or 1, progress=progress)
    write_json(stamp, {**wanted, "records": records})
    begun.unlink()
    return records, True

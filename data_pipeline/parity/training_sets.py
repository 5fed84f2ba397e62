"""What students are trained on: the parity gap, and controls that tell whether the gap or just more data did it.

All begin with the same student, in later rounds each with its own of the round before, and take as many steps. `kept`
and `random` are as large as each other; `all` has every pair that the teacher wrote, of which a training of so many
steps sees fewer often.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.parity.pairs import Compared, Pair
from data_pipeline.records import Record, write_records
from vlm_jax.checkpoint.files import write_json
from vlm_jax.errors import InputError

WRITTEN = "training_sets.json"
"""In the folder of a round: how large each set is; written when all are."""


@dataclass(frozen=True)
class TrainingSet:
    """One arm.

    Attributes:
      pairs: in the order of their ids.
      replayed: how many of them the student had right already.
    """

    pairs: list[Pair]
    replayed: int = 0


def training_sets(
    compared: Sequence[Compared], arms: Sequence[str], *, replay: float, seed: int
) -> dict[str, TrainingSet]:
    """{arm: what it is trained on}.

    Args:
      replay: so large a share of `kept` are pairs that student and teacher had right, where there are so many, against
        forgetting. `random` is drawn from all pairs, as many in all.

    Raises:
      InputError: nothing is kept.
    """
    kept = [one.pair for one in compared if one.kept]
    if not kept:
        raise InputError(_nothing_kept(compared))
    known = _drawn([one.pair for one in compared if one.outcome == "both right"], f"replay {seed}")
    replayed = known[: round(replay / (1 - replay) * len(kept))]
    every = [one.pair for one in compared]
    size = len(kept) + len(replayed)
    found = {
        "kept": TrainingSet(_in_order([*kept, *replayed]), len(replayed)),
        "random": TrainingSet(_in_order(_drawn(every, f"random {seed}")[:size])),
        "all": TrainingSet(_in_order(every)),
    }
    return {arm: found[arm] for arm in arms}


def _nothing_kept(compared: Sequence[Compared]) -> list[str]:
    student, teacher = (sum(getattr(one, name) for one in compared) for name in ("student_right", "teacher_right"))
    return [
        f"nothing is kept of {len(compared):,} pairs: the student has {student:,} right and the teacher {teacher:,}, "
        "and the teacher has none right that the student has wrong; nothing is trained",
        "all answers are kept; write more pairs (config.annotate.pairs, config.images.most), take another "
        "config.identify.matcher, or a student that knows less than its teacher",
    ]


def _drawn(pairs: Sequence[Pair], what: str) -> list[Pair]:
    """In an order that depends on their ids alone."""
    return sorted(pairs, key=lambda pair: hashlib.sha256(f"{what} {pair.id}".encode()).digest())


def _in_order(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: pair.id)


def write(sets: dict[str, TrainingSet], folder: Path, provenance: dict[str, str]) -> dict[str, Path]:
    """{arm: its records file}: question and answer as the teacher wrote them, images named where they lie."""
    files = {}
    for arm, own in sets.items():
        files[arm] = folder / f"{arm}.jsonl"
        records = [_record(pair, provenance) for pair in own.pairs]
        partial = folder / f".{arm}.partial.jsonl"
        write_records(partial, records)
        partial.replace(files[arm])
    write_json(
        folder / WRITTEN,
        {arm: {"pairs": len(own.pairs), "replayed": own.replayed} for arm, own in sets.items()},
    )
    return files


def written(folder: Path) -> bool:
    """Whether the sets of a round are there, and so is what they were made of."""
    return (folder / WRITTEN).is_file()


def _record(pair: Pair, provenance: dict[str, str]) -> Record:
    shown: list[dict[str, Any]] = [{"type": "image", "image": pair.file}, {"type": "text", "text": pair.question}]
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": shown},
        {"role": "assistant", "content": pair.answer},
    ]
    return Record(pair.id, messages, task=pair.type or None, provenance=json.loads(json.dumps(provenance)))

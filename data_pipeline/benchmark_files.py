"""The official files of a benchmark, checked as its evaluation server would: ids, answers, and how much of a split.

Reading them is `data_pipeline.sources`'; what a benchmark is, `vlm_jax.evaluation.benchmark`'s.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources import official
from vlm_jax.evaluation.benchmark import Benchmark


def check(benchmark: Benchmark, records: Sequence[Record], errors: list[str]) -> bool:
    """Adds a line for every question without the id that it is handed in under, for every id that is there twice, and
    for a split without its answers although they are published.

    Returns:
      Whether there are answers. Where only some are missing, that is each question's own error.
    """
    if benchmark.submission is not None:
        errors += _errors_of_ids(benchmark.submission.id_field, records)
    if any(map(_is_answered, records)):
        return True
    splits = dict.fromkeys(official.of(record).split for record in records)
    for split in splits:
        if split in benchmark.splits and benchmark.splits[split].answered:
            errors.append(
                f"--data: no question has an answer, and those of {benchmark.title}'s split {split!r} are published; "
                f"give them: {benchmark.files}"
            )
    return False


def part_of(benchmark: Benchmark, records: Sequence[Record]) -> dict[str, Any]:
    """Which split it is and how many questions that has as it is published, as far as both are known.

    Returns:
      {"split", "size"}; {"splits": {split: questions}} of several; {} where nothing is known.
    """
    counts = Counter(official.of(record).split for record in records)
    if len(counts) > 1:
        return {"splits": dict(sorted(counts.items()))}
    split = next(iter(counts), "")
    if not split and len(benchmark.splits) == 1:
        split = next(iter(benchmark.splits))
    if split not in benchmark.splits:
        return {"split": split} if split else {}
    size = benchmark.splits[split].size
    return {"split": split, **({"size": size} if size else {})}


def _errors_of_ids(field: str, records: Sequence[Record]) -> list[str]:
    errors: list[str] = []
    first: dict[int | str, str] = {}
    for record in records:
        id = official.of(record).ids.get(field)
        if id is None:
            errors.append(f"{record.where}: has no {field!r}, which its answer is handed in under; add it")
        elif (earlier := first.setdefault(id, record.where)) != record.where:
            errors.append(f"{record.where}: the {field!r} {id!r} is already that of {earlier}; keep one of them")
    return errors


def _is_answered(record: Record) -> bool:
    return bool(record.answers) or record.messages[-1]["role"] == "assistant"

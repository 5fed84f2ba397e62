"""One file of what all shards kept, and one of what they dropped, in the order of ids; a line at a time."""

import contextlib
import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.corpus.filters.applying import EXAMPLES, Count, Dropped, counted, kind_of
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.shards import files
from data_pipeline.corpus.shards.plan import load
from vlm_jax.errors import InputError


@dataclass(frozen=True)
class Merged:
    """Files of pairs that are kept, dropped (with filter and reason), and that contradict each other; a count a filter.

    The counts have examples of what was dropped, none of what was kept.
    """

    kept: Path
    dropped: Path
    contradictions: Path
    counts: list[Count]


def merge(folder: Path) -> Merged:
    """What all shards wrote, in one.

    Raises:
      InputError: a shard that is not done; ids that occur twice.
    """
    plan = load(folder)
    shards = range(plan.of)
    if missing := [shard for shard in shards if not (folder / "write" / str(shard) / "done").exists()]:
        raise InputError(f"shards: merging comes after write, which is not done for shards {missing}; run these first")
    result = Merged(folder / "kept.jsonl", folder / "dropped.jsonl", folder / "contradictions.jsonl", [])
    sources = [(folder / "write" / str(shard) / "kept.jsonl", True) for shard in shards]
    sources += [
        (folder / stage / str(shard) / "dropped.jsonl", False) for stage in ("split", "write") for shard in shards
    ]
    shown: dict[tuple[str, str], list[Dropped]] = {}
    before = None
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(files.write_whole(result.kept))
        dropped = stack.enter_context(files.write_whole(result.dropped))
        for id, keeps, line in heapq.merge(*(_lines(path, keeps) for path, keeps in sources), key=lambda one: one[0]):
            if id == before:
                raise InputError(f"shards: the id {id!r} occurs more than once; an id is a pair's own")
            before = id
            (kept if keeps else dropped).write(line)
            if not keeps:
                _show(shown, json.loads(line))
    both = {tuple(ids) for shard in shards for ids in files.read_lines(_contradictions(folder, shard))}
    files.write_lines(result.contradictions, sorted(both))
    result.counts.extend(_counts(folder, plan.of, plan.filters, shown))
    return result


def _contradictions(folder: Path, shard: int) -> Path:
    return folder / "choose" / str(shard) / "contradictions.jsonl"


def _lines(path: Path, keeps: bool) -> Iterator[tuple[str, bool, bytes]]:
    with open(path, "rb") as file:
        for line in file:
            entry = json.loads(line)
            yield (entry if keeps else entry["pair"])["id"], keeps, line


def _show(shown: dict[tuple[str, str], list[Dropped]], entry: dict) -> None:
    """Keeps the few of a kind of reason that come first by rank."""
    one = Dropped(Pair(**entry["pair"]), entry["filter"], entry["reason"])
    some = shown.setdefault((one.filter, kind_of(one.reason)), [])
    some.append(one)
    if len(some) > 2 * EXAMPLES:
        some[:] = sorted(some, key=lambda one: one.pair.rank)[:EXAMPLES]


def _counts(folder: Path, of: int, filters: dict, shown: dict[tuple[str, str], list[Dropped]]) -> list[Count]:
    totals: dict[str, Counter] = {name: Counter() for name in filters}
    for shard in range(of):
        for stage in ("split", "write"):
            for name, counts in files.read_lines(folder / stage / str(shard) / "counts.jsonl"):
                totals[name].update(counts)
    found = []
    for name, reasons in totals.items():
        kept = reasons.pop("", 0)
        examples = [one for (filter, _), some in shown.items() if filter == name for one in some]
        chosen = counted(name, (), examples).examples
        found.append(Count(name, kept, sum(reasons.values()), dict(sorted(reasons.items())), chosen))
    return found

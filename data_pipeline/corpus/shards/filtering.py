"""Filters of words on pairs that are in memory, by the runner of one's choice: the outcome of `applying.apply`."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.corpus.filters.applying import Dropped, Outcome, counted
from data_pipeline.corpus.filters.pair import Pair, to_json
from data_pipeline.corpus.shards import files, merging, plan, runners

RUNNERS = ("here", "processes", "ray")
"""This process without shards; processes of this machine; Ray."""


def filtered(
    chosen: Mapping[str, Mapping[str, Any]], pairs: Sequence[Pair], runner: str, shards: int, folder: Path
) -> Outcome:
    """What filters keep and drop.

    Args:
      chosen: {name: options}, as `registry.select` has them; only filters of words.
      pairs: in the order of their ids.
      runner: "processes" or "ray".
      shards: pieces, as many at a time as there are cores; 0 for one a core.
      folder: in which a folder of shards is made, and removed again; Ray's machines must all see it.
    """
    shards = shards or os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix=".filtering-", dir=folder) as made:
        own = Path(made)
        files.write_lines(own / "pairs.jsonl", map(to_json, pairs))
        plan.prepare(own, [own / "pairs.jsonl"], shards, chosen)
        merged = _run(own, runner, shards)
        reasons = {one["pair"]["id"]: (one["filter"], one["reason"]) for one in files.read_lines(merged.dropped)}
        contradictions = [(one, other) for one, other in files.read_lines(merged.contradictions)]
    left, dropped, counts = list(pairs), [], []
    for name in chosen:
        gone = [Dropped(pair, *found) for pair in left if (found := reasons.get(pair.id)) and found[0] == name]
        left = [pair for pair in left if reasons.get(pair.id, ("",))[0] != name]
        dropped += gone
        counts.append(counted(name, left, gone))
    return Outcome(left, dropped, counts, contradictions)


def _run(folder: Path, runner: str, shards: int) -> merging.Merged:
    if runner == "ray":
        return runners.on_ray(folder)
    return runners.in_processes(folder, min(shards, os.cpu_count() or 1))

"""The stages, each a function of a folder, its plan and the number of a shard."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipeline.corpus.filters import minhash, near_text
from data_pipeline.corpus.filters.applying import Dropped, kind_of, reasons_of
from data_pipeline.corpus.filters.canonical import canonical
from data_pipeline.corpus.filters.pair import Pair, from_json, text_hash, to_json
from data_pipeline.corpus.filters.registry import nearest
from data_pipeline.corpus.shards import files, partition
from data_pipeline.corpus.shards.plan import DUPLICATES, Plan, load
from vlm_jax.errors import InputError, gathered

_PIECE = 1000  # pairs that are filtered at a time
_MOST_ERRORS = 20


def run(folder: Path, stage: str, *, shard: int, of: int) -> None:
    """One shard of one stage: a piece of an array job. All shards of the stage before must have been run.

    Raises:
      InputError: an unknown stage or shard, another number of shards than planned, a stage before that is not done;
        what is wrong with the input.
    """
    plan = load(folder)
    if stage not in STAGES:
        raise InputError(f"shards: no stage {stage!r}; {nearest(stage, STAGES)}")
    if of != plan.of or not 0 <= shard < of:
        raise InputError(
            f"shards: shard {shard} of {of}; {folder} is planned for shards 0 to {plan.of - 1} of {plan.of}"
        )
    before = list(STAGES)[: list(STAGES).index(stage)][-1:]
    missing = [number for number in range(of) for name in before if not _done(folder, name, number).exists()]
    if missing:
        raise InputError(
            f"shards: {stage} comes after {before[0]}, which is not done for shards {missing}; run these first"
        )
    if not _done(folder, stage, shard).exists():
        STAGES[stage](folder, plan, shard)
        with files.write_whole(_done(folder, stage, shard)):
            pass


def split(folder: Path, plan: Plan, shard: int) -> None:
    """A range of the input: parsed, filtered pair by pair, partitioned by question."""
    own = folder / "split" / str(shard)
    kept: dict[int, list[tuple[int, Pair]]] = defaultdict(list)
    dropped: list[Dropped] = []
    counts = {name: Counter() for name in plan.filters if name != DUPLICATES}
    forms: dict[str, int] = {}
    for pairs in _pieces(_parsed(plan, shard)):
        for name in counts:
            reasons = reasons_of(name, plan.filters[name], pairs, {})
            dropped += [Dropped(pair, name, reasons[pair.id]) for pair in pairs if reasons[pair.id]]
            counts[name].update(kind_of(reasons[pair.id]) for pair in pairs)
            pairs = [pair for pair in pairs if not reasons[pair.id]]
        for pair in pairs:
            if pair.question not in forms:
                forms[pair.question] = text_hash(canonical(pair.question))
            kept[forms[pair.question] % plan.of].append((forms[pair.question], pair))
    for number in range(plan.of):
        files.write_lines(own / f"pairs-{number}.jsonl", ((name, to_json(pair)) for name, pair in kept[number]))
    files.write_lines(own / "dropped.jsonl", map(_entry, sorted(dropped, key=lambda one: one.pair.id)))
    files.write_lines(own / "counts.jsonl", counts.items())


def sign(folder: Path, plan: Plan, shard: int) -> None:
    """A partition in order, its signatures, and its band keys, partitioned by key."""
    own = folder / "sign" / str(shard)
    pieces = [folder / "split" / str(number) / f"pairs-{shard}.jsonl" for number in range(plan.of)]
    names, signed = partition.write(
        own, ((name, Pair(**pair)) for path in pieces for name, pair in files.read_lines(path))
    )
    entries = minhash.bucket_entries(names, signed)
    remainders = (entries[:, 0] >> np.uint64(5)) % np.uint64(plan.of)  # the low bits are the band's number
    for number in range(plan.of):
        files.write_array(own / f"keys-{number}.npy", entries[remainders == number])


def bucket(folder: Path, plan: Plan, shard: int) -> None:
    """The buckets of some keys: candidates, partitioned by their first question."""
    pieces = [files.read_array(folder / "sign" / str(number) / f"keys-{shard}.npy") for number in range(plan.of)]
    entries = np.concatenate(pieces)
    window = plan.filters.get(DUPLICATES, {}).get("window", 1)
    pairs = minhash.windowed(entries, window)
    for number in range(plan.of):
        mine = pairs[pairs[:, 0] % np.uint64(plan.of) == number]
        files.write_array(folder / "bucket" / str(shard) / f"pairs-{number}.npy", mine)


def verify(folder: Path, plan: Plan, shard: int) -> None:
    """The candidates of a partition: those that are alike."""
    pieces = [files.read_array(folder / "bucket" / str(number) / f"pairs-{shard}.npy") for number in range(plan.of)]
    candidates = minhash.unique_pairs(np.concatenate(pieces))
    threshold = plan.filters.get(DUPLICATES, {}).get("threshold", 1.0)
    alike = near_text.verified(candidates, _partitions(folder, plan), threshold)
    files.write_array(folder / "verify" / str(shard) / "alike.npy", alike)


def choose(folder: Path, plan: Plan, shard: int) -> None:
    """Questions that are alike, directly or by others, belong to the shard of the smallest of them."""
    own = folder / "choose" / str(shard)
    given_way: dict[int, list] = defaultdict(list)
    contradictions: list[tuple[str, str]] = []
    if DUPLICATES in plan.filters:
        alike = np.concatenate([files.read_array(folder / "verify" / str(n) / "alike.npy") for n in range(plan.of)])
        first = first_of(alike)
        partitions = _partitions(folder, plan)
        names = [name for name in partitions.each[shard].several() if name not in first]
        names += [name for name, smallest in first.items() if smallest % plan.of == shard]
        pairs, named = [], {}
        for name in sorted(names):
            for pair in partitions.of(name).pairs(name):
                pairs.append(pair)
                named[pair.id] = name
        mine = np.fromiter((first[name] % plan.of == shard for name in alike[:, 0].tolist()), bool, len(alike))
        found = near_text.chosen(pairs, named, alike[mine], plan.filters[DUPLICATES]["same_image"])
        for id, duplicate in found.given_way.items():
            given_way[named[id] % plan.of].append((id, duplicate.survivor, duplicate.exact))
        contradictions = list(found.contradictions)
    for number in range(plan.of):
        files.write_lines(own / f"given_way-{number}.jsonl", sorted(given_way[number]))
    files.write_lines(own / "contradictions.jsonl", contradictions)


def write(folder: Path, plan: Plan, shard: int) -> None:
    """The pairs of a partition that stay, and those that do not, in the order of their ids."""
    own = folder / "write" / str(shard)
    given_way = {}
    for number in range(plan.of):
        for id, survivor, exact in files.read_lines(folder / "choose" / str(number) / f"given_way-{shard}.jsonl"):
            given_way[id] = near_text.Duplicate(survivor, exact)
    pairs = sorted((Pair(**one) for one in files.read_lines(folder / "sign" / str(shard) / "pairs.jsonl")), key=_id)
    kept = [pair for pair in pairs if pair.id not in given_way]
    gone = [
        Dropped(pair, DUPLICATES, near_text.near_duplicate(pair, given_way[pair.id]))
        for pair in pairs
        if pair.id in given_way
    ]
    files.write_lines(own / "kept.jsonl", map(to_json, kept))
    files.write_lines(own / "dropped.jsonl", map(_entry, gone))
    counts = {DUPLICATES: Counter(kind_of(one.reason) for one in gone) + Counter({"": len(kept)})}
    files.write_lines(own / "counts.jsonl", counts.items() if DUPLICATES in plan.filters else ())


STAGES: dict[str, Callable[[Path, Plan, int], None]] = {
    "split": split,
    "sign": sign,
    "bucket": bucket,
    "verify": verify,
    "choose": choose,
    "write": write,
}
"""In their order. All shards of one must be done before any of the next begins."""


def first_of(alike: np.ndarray) -> dict[int, int]:
    """{a question that is alike to another: the smallest of all that it is connected with} (union–find)."""
    parent: dict[int, int] = {}

    def root(name: int) -> int:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in alike.tolist():
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return {name: root(name) for name in list(parent)}


def _done(folder: Path, stage: str, shard: int) -> Path:
    return folder / stage / str(shard) / "done"


def _partitions(folder: Path, plan: Plan) -> partition.Partitions:
    return partition.Partitions([folder / "sign" / str(number) for number in range(plan.of)])


def _parsed(plan: Plan, shard: int) -> Iterator[Pair]:
    errors: list[str] = []
    for path, at, line in files.lines_from(plan.inputs, plan.sizes, shard, plan.of):
        pair = None
        with gathered(errors):
            pair = _pair(line, f"{path}, the line at byte {at:,}")
        if pair is not None:
            yield pair
        if len(errors) >= _MOST_ERRORS:
            break
    if errors:
        raise InputError(errors)


def _pair(line: bytes, where: str) -> Pair:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: is no JSON ({error}); write the line again or remove it") from error
    if not isinstance(entry, dict):
        raise InputError(f"{where}: is no JSON object")
    return from_json(entry, where)


def _pieces(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    piece: list[Pair] = []
    for pair in pairs:
        piece.append(pair)
        if len(piece) == _PIECE:
            yield piece
            piece = []
    yield piece


def _entry(one: Dropped) -> dict:
    return {"pair": to_json(one.pair), "filter": one.filter, "reason": one.reason}


def _id(pair: Pair) -> str:
    return pair.id

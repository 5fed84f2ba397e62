"""Records whose context holds the passages found for their questions: written once, then trained on and asked as any
others.

Which passages are near is `vlm_jax.retrieval`'s, which of them stand in a context `contexts`'.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import records as records_file
from data_pipeline.contexts import ContextRules, gold_of, unanswered, with_context
from data_pipeline.records import Record, images_of
from data_pipeline.sources import read
from vlm_jax import locations
from vlm_jax.checkpoint.files import write_json
from vlm_jax.errors import InputError, gathered
from vlm_jax.retrieval import fusion, recall
from vlm_jax.retrieval.encoder import Encoder, load_encoder
from vlm_jax.retrieval.index import DEPTH, Index, Ranking, open_index

KS = (1, 5, 10, 20, 50, 100)
"""Of recall@k, as far as passages were looked for."""
BATCH = 64
"""Questions that are embedded and searched for at one time."""
Progress = Callable[[Iterable, int], Iterator]


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """What is looked for where.

    Attributes:
      records: data that training reads; output: a JSONL file, beside which `.retrieval.json` tells recall.
      index: a folder of `scripts/build_index.py`; encoder: the one it was built with.
      gold: where a record names the passages that answer it: `fact_id`, or a key of its provenance.
      weights, fusion, normalise, depth: `vlm_jax.retrieval.index.Ranking`'s.
      backend: of `vlm_jax.retrieval.search.BACKENDS`.
      rules: which passages stand in a context.
      format, image_root, columns: as `sources.open_source` takes them.
    """

    records: str
    index: str
    encoder: str
    output: str
    gold: str = "passage_id"
    weights: Mapping[str, float | int] = dataclasses.field(default_factory=lambda: dict.fromkeys(fusion.CHANNELS, 1.0))
    fusion: str = "weighted"
    normalise: str = "minmax"
    depth: int = DEPTH
    backend: str = "device"
    rules: ContextRules = dataclasses.field(default_factory=ContextRules)
    format: str = "auto"
    image_root: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)


def retrieve(retrieval: Retrieval, *, progress: Progress = lambda items, total: iter(items)) -> dict[str, Any]:
    """Writes the records with their contexts. Returns what is in `.retrieval.json`: settings, and recall@k over the
    records that name a gold passage.

    Args:
      progress: passes batches of questions on, of which there are `total`.

    Raises:
      InputError: unreadable records, an index of another encoder or of older passages, gold passages that the index
        does not hold, settings that cannot be: all that can be found before anything is embedded.
    """
    output = Path(retrieval.output)
    ranking = Ranking(retrieval.fusion, retrieval.weights, retrieval.normalise, retrieval.depth)
    if output.suffix != ".jsonl":
        raise InputError(f"--output={output}: wanted the name of a .jsonl file")
    if output.exists() and output.resolve() == Path(retrieval.records).resolve():
        raise InputError(f"--output={output}: would take the place of --records; name another file")
    options: dict[str, Any] = {name: getattr(retrieval, name) for name in ("format", "image_root", "columns")}
    found_records, errors = read(retrieval.records, training=False, **options)
    encoder = index = None
    with gathered(errors):
        encoder = load_encoder(retrieval.encoder)
        index = open_index(retrieval.index, encoder, backend=retrieval.backend)
    if errors or encoder is None or index is None:
        raise InputError(errors)
    gold = _gold(found_records, retrieval, index)
    # Enough that wrong passages can take the place of right ones.
    wanted = min(len(index.passages), max(retrieval.depth, retrieval.rules.k + retrieval.rules.distractors, *KS[:3]))
    found = _found(found_records, encoder, index, wanted, ranking, progress)
    lacking = unanswered([record.id for record in found_records], retrieval.rules)
    numbers, passages, written = index.numbers, index.passages, []
    for record, ids, mine in zip(found_records, found, gold, strict=True):
        with gathered(errors):
            written.append(
                with_context(
                    record,
                    ids,
                    mine,
                    lambda id: passages[numbers[id]],
                    retrieval.rules,
                    lacks_answer=record.id in lacking,
                )
            )
    if errors:
        raise InputError(errors)
    records_file.write_records(output, written)
    summary = _summary(retrieval, encoder, index, found, gold, wanted, len(lacking))
    write_json(report_of(output), summary)
    return summary


def report_of(output: Path) -> Path:
    """Where recall is told of a file of records."""
    return output.with_suffix(".retrieval.json")


def _gold(found_records: Sequence[Record], retrieval: Retrieval, index: Index) -> list[list[str]]:
    errors: list[str] = []
    gold = []
    for record in found_records:
        with gathered(errors):
            named = gold_of(record, retrieval.gold)
            gold.append(named)
            if unknown := [id for id in named if id not in index.numbers]:
                raise InputError(
                    f"{record.where}: {retrieval.gold} names {unknown[0]!r}, which is no passage of {retrieval.index}"
                )
            if retrieval.rules.oracle and not named:
                raise InputError(f"{record.where}: names no gold passage ({retrieval.gold}), which --oracle shows")
    if errors:
        raise InputError(errors)
    return gold


def _found(
    found_records: Sequence[Record], encoder: Encoder, index: Index, k: int, ranking: Ranking, progress: Progress
) -> list[list[str]]:
    """Ids of the passages found for each record, by the words of its first question and its first image."""
    starts, found = range(0, len(found_records), BATCH), []
    for start in progress(starts, len(starts)):
        part = found_records[start : start + BATCH]
        shown = [images_of(record)[:1] for record in part]
        vectors: list[np.ndarray | None] = [None] * len(part)
        having = [number for number, images in enumerate(shown) if images]
        for number, vector in zip(having, encoder.encode_images([_opened(shown[n][0]) for n in having]), strict=True):
            vectors[number] = vector
        texts = encoder.encode_texts([_question(record) for record in part])
        orders = index.search(texts, vectors, k, ranking)
        found += [[index.passages[number].id for number in order] for order in orders]
    return found


def _opened(image: str | bytes) -> str | bytes:
    return locations.read_bytes(image) if isinstance(image, str) and locations.is_remote(image) else image


def _question(record: Record) -> str:
    content = next(message["content"] for message in record.messages if message["role"] == "user")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _summary(
    retrieval: Retrieval,
    encoder: Encoder,
    index: Index,
    found: Sequence[Sequence[str]],
    gold: Sequence[Sequence[str]],
    wanted: int,
    lacking: int,
) -> dict[str, Any]:
    known = [(ids, mine) for ids, mine in zip(found, gold, strict=True) if mine]
    scores: dict[str, Any] = {"recall": None, "mean_reciprocal_rank": None}
    if known:
        orders, wanted_ids = [ids for ids, _ in known], [mine for _, mine in known]
        scores = {
            "recall": {
                str(k): recall.recall_at(orders, wanted_ids, k)
                for k in sorted({*KS, retrieval.rules.k})
                if k <= min(wanted, max(retrieval.rules.k, len(index.passages) - 1))
            },
            "mean_reciprocal_rank": recall.reciprocal_rank(orders, wanted_ids),
        }
    return {
        "records": len(found),
        "records_with_gold": len(known),
        **scores,
        "passages": len(index.passages),
        "without_answer": lacking,
        "encoder": {"name": encoder.name, "fingerprint": encoder.fingerprint()},
        "index": index.digest,
        "settings": {
            **{name: getattr(retrieval, name) for name in ("fusion", "normalise", "depth", "backend", "gold")},
            "weights": dict(retrieval.weights),
            **dataclasses.asdict(retrieval.rules),
        },
    }


def closing_lines(summary: Mapping[str, Any], output: str) -> str:
    """What a person is told at the end."""
    most = f"up to {summary['settings']['k']} of {summary['passages']:,} passages"
    line = f"{output}: {summary['records']:,} records, each with {most}"
    if summary["without_answer"]:
        line += f"; {summary['without_answer']:,} contexts lack the answer"
    if summary["recall"] is None:
        gold = summary["settings"]["gold"]
        place = "as its fact_id" if gold == "fact_id" else f'as "{gold}" in its provenance'
        return f"{line}\nrecall: not told, as no record names its gold passage {place}"
    scores = ", ".join(f"@{k} {value:.1%}" for k, value in summary["recall"].items())
    return f"{line}\nrecall {scores} of {summary['records_with_gold']:,} records that name their gold passage"

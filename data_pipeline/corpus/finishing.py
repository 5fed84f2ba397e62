"""From the questions of the stages to a corpus: records by split, the manifest, and the card."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.corpus import card, exports, page, prompts, quality
from data_pipeline.corpus.pipeline import Pipeline
from data_pipeline.corpus.stages import facts
from data_pipeline.corpus.stages.stage import Item
from data_pipeline.records import Record, write_records
from data_pipeline.review.decisions import ACCEPTED, EDITED, REJECTED, UNRESOLVED, read_decisions
from data_pipeline.review.log import LOG
from data_pipeline.review.summary import acceptance, agreements
from vlm_jax.checkpoint.files import read_json, write_json, write_text
from vlm_jax.errors import InputError

_MADE = re.compile(r"[0-9a-f]{64}\.(jpg|png|webp)")
MANIFEST, PAGE = "manifest.json", "corpus.html"


def finish(folder: Path, items: Sequence[Item], pipeline: Pipeline, settings: Mapping[str, Any]) -> str:
    """Writes `<split>.jsonl`, other forms, the card and a page, `manifest.json` last. Returns a closing line.

    Raises:
      InputError: nothing is left after the filters, or splits have in common what they may not.
    """
    checked = quality.checked(items, settings, pipeline.ask, folder)
    if not checked.items:
        reasons = [f"{count.filter}: {count.dropped:,} left out" for count in checked.counts if count.dropped]
        raise InputError([f"{folder}: the filters leave nothing of {len(items):,} questions", *reasons])
    records, review = reviewed([record_of(item, folder) for item in checked.items], folder)
    splits: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.split or "train", record.id)):
        splits.setdefault(record.split or "train", []).append(record)
    _remove_earlier(folder, splits)
    for split, own in splits.items():
        write_records(folder / f"{split}.jsonl", own)
    kept = {record.id for record in records}
    checked.items = [item for item in checked.items if item["id"] in kept]
    _remove_unused(folder, checked.items)
    manifest = {**_manifest(checked, pipeline, settings), "review": review}
    exports.write(folder, splits, settings["card"]["formats"])
    write_text(folder / "README.md", card.text(manifest))
    write_text(folder / PAGE, page.page(checked, manifest, folder))
    write_json(folder / MANIFEST, manifest)
    counts = ", ".join(f"{len(own):,} in {split}.jsonl" for split, own in splits.items())
    dropped = ", ".join(f"{one.dropped:,} by {one.filter}" for one in checked.counts if one.dropped)
    left_out = f" (left out: {dropped})" if dropped else ""
    return f"{folder}: {counts}{left_out}; look at {folder / PAGE}"


def reviewed(records: Sequence[Record], folder: Path) -> tuple[list[Record], dict[str, Any]]:
    """(records as the reviewers left them, without those that they rejected; the figures of the review).

    A decision about a record that has changed since is not followed. Those that are left out are named, so that
    figures of the review can count them when they are gone.
    """
    decisions = read_decisions(folder) if (folder / LOG).is_file() else {}
    about = {record.id: one for record in records if (one := decisions.get(record.id)) and one.is_about(record)}
    verdicts = Counter(one.verdict for one in about.values())
    agreement, kappa = agreements(about.values())
    flagged = {record.id for record in records if (record.provenance or {}).get("flags")}
    left_out = [record for record in records if record.id in about and about[record.id].verdict == REJECTED]
    figures = {
        "reviewed": len(about),
        "records": len(records),
        "verdicts": {name: verdicts[name] for name in (ACCEPTED, EDITED, REJECTED, UNRESOLVED)},
        "acceptance": acceptance(about.values(), flagged),
        "reviewers": len({name for one in about.values() for name in one.by_reviewer}),
        "twice": sum(pair["n"] for pair in agreement),
        "kappa": kappa,
        "left_out": {
            "flagged": [record.id for record in left_out if record.id in flagged],
            "unflagged": [record.id for record in left_out if record.id not in flagged],
        },
    }
    left = [record for record in records if record.id not in about or about[record.id].verdict != REJECTED]
    return [about[record.id].applied_to(record) if record.id in about else record for record in left], figures


def record_of(item: Item, folder: Path) -> Record:
    """A question as a record. Held-out ones have their short answer as the accepted one."""
    image = str((folder / "images" / item["image"]).absolute())
    content = [
        {"type": "image", "image": image},
        {"type": "text", "text": f"{item['question']} {item.get('wants', '')}".strip()},
    ]
    reply = item.get("reasoning") or item["answer"]
    provenance = {name: item[name] for name in ("topic", "fact", "language", "image_source", "flags") if item.get(name)}
    return Record(
        item["id"],
        [{"role": "user", "content": content}, {"role": "assistant", "content": reply}],
        answers=[item["answer"]] if item["split"] != "train" else None,
        task=item["task"],
        fact_id=item.get("fact_id"),
        split=item["split"],
        context=item.get("context"),
        reasoning=item.get("reasoning") or None,
        provenance=provenance,
    )


def _remove_earlier(folder: Path, splits: Iterable[str]) -> None:
    """Records of splits that an earlier making had and this one has not: their images will be gone."""
    if (folder / MANIFEST).is_file():
        for name in set(read_json(folder / MANIFEST).get("splits", {})) - set(splits):
            (folder / f"{name}.jsonl").unlink(missing_ok=True)


def _remove_unused(folder: Path, items: Iterable[Item]) -> None:
    """Images of an earlier making that no record shows any more: they are in the store still.

    Known by their names, so that nothing of a person's own goes.
    """
    used = {item["image"] for item in items}
    for path in (folder / "images").iterdir():
        if path.name not in used and _MADE.fullmatch(path.name):
            path.unlink()


def _manifest(checked: quality.Checked, pipeline: Pipeline, settings: Mapping[str, Any]) -> dict[str, Any]:
    store = pipeline.asker.store
    items = checked.items
    questions = [item["question"] for item in items]
    return {
        "title": settings["card"]["title"] or settings["subject"],
        "licence": settings["card"]["licence"],
        "subject": settings["subject"],
        "languages": dict(sorted(Counter(item["language"] for item in items).items())),
        "splits": dict(sorted(Counter(item["split"] for item in items).items())),
        "tasks": dict(sorted(Counter(item["task"] for item in items).items())),
        "image_sources": dict(sorted(Counter(item["image_source"] for item in items).items())),
        "images": len({item["image"] for item in items}),
        "different_questions": len(set(questions)),
        "own_images_left_out": sum(len(pipeline.left_out.get(name, [])) for name in ("own_images", "photographs")),
        "stages": {
            name: {"items": count, "left_out": len(pipeline.left_out[name])} for name, count in pipeline.counts.items()
        },
        "filters": [
            {"filter": one.filter, "kept": one.kept, "dropped": one.dropped, "reasons": dict(one.reasons)}
            for one in checked.counts
        ],
        "retention": checked.retention,
        "similarity": [list(row) for row in checked.similarity],
        "not_shown": checked.swapped,
        "leakage": {kind: {"exact": exact, "near": near} for kind, (exact, near) in checked.leaks.items()},
        "apart": list(settings["splits"]["apart"]),
        "student": bool(settings["teachers"]["student"]),
        "own_judge": settings["own_judge"],
        "judge": facts.are_checked(settings),
        "models": store.versions(),
        "days": store.days(),
        "calls": store.sums(),
        "prices": json.loads(json.dumps(settings["prices"])),
        "prompts": prompts.digests(settings["prompts"]),
    }

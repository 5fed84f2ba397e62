"""What a person wants to know of their data before training on it, as text: lengths, pictures, batches, what is lost.

Measuring is `examples`', shapes and plans of batches are `packing`'s.
"""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipeline import loader
from data_pipeline.examples import UNKNOWN
from data_pipeline.packing import Bucket, as_array, bucket_of

_BAR = 40  # characters of the longest bar


def report(dataset: loader.Dataset, buckets: Sequence[Bucket], config: ConfigDict, *, merge_unit: int) -> str:
    """Counts, histograms, batches and losses of a data set whose buckets are chosen.

    Args:
      merge_unit: patches of a visual token.
    """
    examples = dataset.examples
    sizes = np.concatenate(examples.sizes)
    measured = sizes[sizes[:, 0] != UNKNOWN]
    used = measured[measured[:, 0] >= 0]
    visual = np.concatenate([held[held >= 0] for held in examples.visual])
    lines = [
        f"examples   {len(examples):,}" + ("" if dataset.complete else f", of which {len(measured):,} were measured"),
        f"pictures   {len(examples.picture_sizes):,}",
        f"tokens     {used[:, 0].sum():,}, of which {visual.sum():,} are visual",
    ]
    for share, part, held in zip(dataset.mixture.parts, examples.parts, examples.sizes, strict=True):
        if len(examples.parts) > 1:
            lines.append(f"  part {share.name}: {len(held):,} examples, weight {share.weight:g}, {part.name}")
    lines += ["", "tokens an example", *histogram(used[:, 0])]
    if len(visual):
        lines += ["", "visual tokens an example with pictures", *histogram(visual[visual > 0])]
        lines += ["", *_resolution(dataset)]
    plan = loader.plan_run(dataset, buckets, steps=0, epochs=1, seed=config.train.seed, shuffle=config.data.shuffle)
    lines += ["", "batches"]
    if dataset.complete:
        planned = [plan[number] for number in range(len(plan))]
        lines += _batches(dataset, buckets, planned)
        lines.append(f"  an epoch is {len(planned):,} steps and {used[:, 0].sum():,} tokens")
    else:
        which = bucket_of(used, as_array([bucket.size for bucket in buckets]))
        rows = sum(used[which == number, 0].sum() / bucket.size.tokens for number, bucket in enumerate(buckets))
        steps = rows / buckets[0].rows * len(examples) / max(len(measured), 1)
        tokens = used[:, 0].sum() * len(examples) / max(len(measured), 1)
        lines += [_shape(bucket) for bucket in buckets]
        lines.append(f"  an epoch is about {steps:,.0f} steps and {tokens:,.0f} tokens (estimated from the sample)")
    lines += ["", f"left out or changed: {dataset.ledger.summary() or 'nothing'}"]
    lines += [f"  {reason}" for reason in dataset.ledger.reasons(10)]
    return "\n".join(lines)


def histogram(values: np.ndarray) -> list[str]:
    """Lines of bars over at most eight ranges of equal ratio, and the quartiles."""
    if not len(values):
        return ["  none"]
    low, high = int(values.min()), int(values.max())
    edges = np.unique(np.round(np.geomspace(max(low, 1), high + 1, 9)).astype(np.int64))
    edges[0], edges[-1] = low, high + 1
    counts, _ = np.histogram(values, edges)
    lines = [
        f"  {begin:>7,} – {end - 1:<7,} {'█' * -(-_BAR * int(count) // int(counts.max())):{_BAR}} {count:,}"
        for begin, end, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True)
        if count
    ]
    quartiles = ", ".join(f"{value:,.0f}" for value in np.percentile(values, [25, 50, 75]))
    return [*lines, f"  quartiles {quartiles}; mean {values.mean():,.0f}"]


def _resolution(dataset: loader.Dataset) -> list[str]:
    """How much of the pictures' own resolution is left, in pixels."""
    processor = dataset.examples.parts[0].processor
    factor = processor.images.factor
    kept = []
    for width, height in dataset.examples.picture_sizes.values():
        rows, columns = processor.grid(width, height)
        kept.append((width * height, rows * columns * factor**2))
    given, seen = np.array(kept, np.float64).T
    smaller = (seen < 0.9 * given).mean()
    return [
        f"resolution: pictures have {_side(given)} pixels a side (median, of squares of their area) and are seen at "
        f"{_side(seen)}; {smaller:.0%} are scaled down by more than a tenth of their area"
    ]


def _side(areas: np.ndarray) -> str:
    return f"{np.sqrt(np.median(areas)):,.0f}"


def _shape(bucket: Bucket) -> str:
    size = bucket.size
    return f"  {bucket.rows} rows × {size.tokens:,} tokens, {size.patches:,} patches, {size.supervised:,} supervised"


def _batches(dataset: loader.Dataset, buckets: Sequence[Bucket], planned) -> list[str]:
    lines = []
    for number, bucket in enumerate(buckets):
        mine = [batch for batch in planned if batch.bucket == number]
        slots = len(mine) * bucket.rows * np.array([bucket.size.tokens, bucket.size.patches])
        used = np.zeros(2)
        for batch in mine:
            for row in batch.rows:
                for part, index in row:
                    used += dataset.examples.sizes[part][index][:2]
        tokens, patches = 1 - used / np.maximum(slots, 1)
        lines.append(
            f"{_shape(bucket)}: {len(mine):,} batches, {tokens:.1%} of the tokens and {patches:.1%} of the patch "
            "slots unused"
        )
    return lines

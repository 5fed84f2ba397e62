"""What a person wants to know of their data before training on it, as text: lengths, images, batches, what is lost.

Measuring is `measure`'s, shapes and plans of batches are `packing`'s.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from ml_collections import ConfigDict

from data_pipeline.dataset import Dataset, remedy
from data_pipeline.ledger import DROPPED, UNUSABLE
from data_pipeline.measure import UNKNOWN
from data_pipeline.packing import Bucket, Plan, Planned, unused_shares
from vlm_jax.error_list import shortened
from vlm_jax.processing import images
from vlm_jax.processing.token_budget import RESIZE

_BAR = 40  # characters of the longest bar
_LARGE = 50_000_000  # pixels, from which on an image's memory is reported


def summary(dataset: Dataset, plan: Plan, steps: int) -> str:
    """The data of a run in the few lines that training begins with; where not all is measured, of what is."""
    examples = dataset.examples
    measured, used, visual = _measured(dataset)
    planned = plan.ahead()
    sample = "" if dataset.complete else f" in a sample of {len(measured):,}"
    lines = [
        f"{len(examples):,} examples"
        + (f" in {len(examples.parts)} parts" if len(examples.parts) > 1 else "")
        + f", {len(examples.image_sizes):,} images, {used[:, 0].sum():,} tokens{sample}; {steps:,} steps",
        f"  tokens an example {_spark(used[:, 0])}",
    ]
    if dataset.schedule is not None:
        lines.append(f"  visual tokens by schedule: {dataset.schedule.describe()}")
    if examples.image_sizes:
        lines.append(f"  visual tokens     {_spark(visual[visual > 0])}{_share(dataset)}")
        original, seen, smaller = _resolution(dataset)
        scaled = f"{smaller:.0%} are scaled down"
        lines.append(f"  images of {original} pixels a side are seen at {seen} (medians); {scaled}")
        lines += _large(examples.image_sizes.values())
        lines += [f"  {line}" for line in _kept_whole(dataset)]
    lines += _batches(dataset, plan.buckets, planned[:steps])
    if len(planned) < steps:
        lines[-1] += f" (of the first {len(planned):,} batches)"
    lines.append(f"  {_epoch(dataset, planned)}")
    if changes := dataset.ledger.summary():
        lines.append(f"  left out or changed: {changes}")
    return "\n".join(lines)


def _share(dataset: Dataset) -> str:
    """What of an image's tokens is left, and how; nothing where a schedule says so, or all are."""
    budget = dataset.examples.budget
    if dataset.schedule is not None or budget.takes_all:
        return ""
    tokens = budget.visual_tokens
    share = f"{tokens:.0%} of an image's" if isinstance(tokens, float) else f"at most {tokens} of an image's"
    return f" ({share}, by {budget.method})"


def _large(sizes: Iterable[tuple[int, int]]) -> list[str]:
    """A line on what images take while they are decoded, where that is felt."""
    width, height = max(sizes, key=math.prod)
    if width * height < _LARGE:
        return []
    memory = images.BYTES_A_PIXEL * width * height / 1e9
    together = max(1, images.AT_ONCE // (width * height))
    return [f"  the largest image is {width:,} × {height:,}: {memory:.1f} GB while it is decoded, {together} at a time"]


def _kept_whole(dataset: Dataset) -> list[str]:
    """A line for each number of tokens an image (no share) that some images do not have more of."""
    examples = dataset.examples
    tokens = [examples.visual_tokens[name] for name in examples.image_sizes if name in examples.visual_tokens]
    budgets = [examples.budget] if dataset.schedule is None else dataset.schedule.budgets
    numbers = [one.visual_tokens for one in budgets if isinstance(one.visual_tokens, int) and one.method != RESIZE]
    counted = [(number, sum(one <= number for one in tokens)) for number in numbers]
    return [
        f"{count:,} of {len(tokens):,} images have no more than {number:,} visual tokens, and keep all"
        for number, count in counted
        if count
    ]


def report(dataset: Dataset, config: ConfigDict) -> str:
    """Counts, histograms, batches and losses of a data set whose buckets are chosen."""
    examples = dataset.examples
    measured, used, visual = _measured(dataset)
    lines = [
        f"examples   {len(examples):,}" + ("" if dataset.complete else f", of which {len(measured):,} were measured"),
        f"images   {len(examples.image_sizes):,}",
        f"tokens     {used[:, 0].sum():,}, of which {visual.sum():,} are visual",
    ]
    if len(dataset.parts) > 1:
        lines += [
            f"  part {one.component.name}: {len(one.source):,} examples, weight {one.component.weight:g}, {one.name}"
            for one in dataset.parts
        ]
    lines += ["", "tokens an example", *histogram(used[:, 0])]
    if examples.image_sizes:
        lines += ["", f"visual tokens an example with images{_share(dataset)}", *histogram(visual[visual > 0])]
        original, seen, smaller = _resolution(dataset)
        lines += [
            "",
            f"resolution: images have {original} pixels a side (median, of squares of their area) and are seen at "
            f"{seen}; {smaller:.0%} are scaled down by more than a tenth of their area",
            *_kept_whole(dataset),
        ]
    plan = Plan(
        dataset.take,
        examples.measure_or_stop,
        dataset.buckets,
        seed=config.train.seed,
        shuffle=config.data.shuffle,
        turns=dataset.turns_of_an_epoch,
        examples=dataset.mixture.examples if dataset.complete else dataset.sample,
    )
    lines += ["", "batches"]
    planned = [plan[number] for number in range(len(plan))]
    lines += _batches(dataset, dataset.buckets, planned)
    lines.append(f"  {_epoch(dataset, planned)}")
    lines += ["", f"left out or changed: {dataset.ledger.summary() or 'nothing'}"]
    lines += [f"  {reason}" for reason in shortened(dataset.ledger.reasons(), shown=3)]
    if (dropped := sum(dataset.ledger.counts[DROPPED, kind] for kind in UNUSABLE)) and config.data.on_error == "stop":
        lines.append(f"  {remedy(dropped)}")
    if dataset.ledger.summary() and (config.data.too_large == "error" or config.data.on_error == "stop"):
        lines.append(
            f"with data.on_error={config.data.on_error} and data.too_large={config.data.too_large}, training stops at "
            "what these settings call an error and lists it"
        )
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


def _spark(values: np.ndarray) -> str:
    """Smallest, bars over eight ranges of equal ratio, largest; the median."""
    if not len(values):
        return "none"
    edges = np.geomspace(max(values.min(), 1), values.max() + 1, 9)
    counts, _ = np.histogram(np.maximum(values, 1), edges)
    bars = "".join(" ▁▂▃▄▅▆▇█"[-(-8 * int(count) // int(counts.max()))] for count in counts)
    return f"{values.min():,} {bars} {values.max():,}, median {np.median(values):,.0f}"


def _measured(dataset: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes of what was measured and of what of it is used, and the visual tokens of that."""
    sizes, visual = dataset.examples.sizes, dataset.examples.visual
    if dataset.schedule is not None:  # each with the budget that it is shown with first
        places = dataset.take(0, dataset.mixture.examples if dataset.complete else dataset.sample)
        sizes = [np.stack([sizes[part][index] for part, index in places.tolist()])]
        visual = [np.array([visual[part][index] for part, index in places.tolist()])]
    sizes = np.concatenate(sizes)
    measured = sizes[sizes[:, 0] != UNKNOWN]
    used = sizes[:, 0] >= 0
    return measured, sizes[used], np.concatenate(visual)[used]


def _resolution(dataset: Dataset) -> tuple[str, str, float]:
    """How much of the images' own resolution is left: sides in pixels (medians), the share that is scaled down."""
    factor, tokens = dataset.examples.parts[0].processor.images.factor, dataset.examples.visual_tokens
    sizes = dataset.examples.image_sizes
    areas = [(np.prod(sizes[key]), tokens[key] * factor**2) for key in sizes if key in tokens]
    original, seen = np.array(areas, np.float64).T
    return _side(original), _side(seen), float((seen < 0.9 * original).mean())


def _side(areas: np.ndarray) -> str:
    return f"{np.sqrt(np.median(areas)):,.0f}"


def _epoch(dataset: Dataset, planned: Sequence[Planned]) -> str:
    measured, used, _ = _measured(dataset)
    expected = len(dataset.examples) * len(used) / max(len(measured), 1)
    count = sum(len(row) for batch in planned for row in batch.rows)
    steps, tokens = len(planned) * expected / max(count, 1), used[:, 0].mean() * expected
    if dataset.complete and count == len(used):
        return f"an epoch is {_counted(round(steps), 'step')} and {tokens:,.0f} tokens"
    about = _counted(max(1, round(steps)), "step")
    return f"an epoch is about {about} and {tokens:,.0f} tokens (from the first {count:,} examples of the run)"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _shape(bucket: Bucket) -> str:
    size = bucket.size
    above = "".join(f", then {tokens:,}" for tokens in size.above)
    inside = f"{size.patches:,} patches, {size.supervised:,} supervised"
    return f"  {bucket.rows} rows × {size.tokens:,} tokens{above}, {inside}"


def _batches(dataset: Dataset, buckets: Sequence[Bucket], planned: Sequence[Planned]) -> list[str]:
    counts, unused = unused_shares(buckets, planned, lambda place: dataset.examples.sizes[place[0]][place[1]])
    return [
        f"{_shape(bucket)}: {count:,} batches"
        + (f", {tokens:.1%} of the tokens and {patches:.1%} of the patch slots unused" if count else "")
        + (f"; of the tokens above {', '.join(f'{share:.1%}' for share in above)}" if count and above else "")
        for bucket, count, (tokens, patches, _, *above) in zip(buckets, counts, unused, strict=True)
    ]

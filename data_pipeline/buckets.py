"""Which shapes of batch suit the data: row sizes tried out on a sample of it, and the cheapest taken.

How examples are laid into rows of given sizes is `packing`'s; what a token and a patch cost, the model's.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from data_pipeline.packing import Bucket, Packer, as_array, bucket_of
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import multiplications
from vlm_jax.processing.example import Size
from vlm_jax.processing.token_budget import TokenBudget, cut_layers

_TRIED = 1000  # examples that row sizes are tried out with
_SHARES = (0.55, 0.7, 0.8, 0.88, 0.94, 1.0, 1.06, 1.15, 1.3)
"""Patch slots of a row that are tried, as parts of what a row full of average examples takes."""
_ROUNDS = 2  # of trying the buckets one after another
_WORTH = 0.99  # a further bucket is compiled where it makes the data at least this much cheaper
_ROOMS = (1.0, 1.04, 1.08, 1.15, 1.25)  # tokens of a row above a cut that are tried, as parts of its share
_ABOVE = 64  # they are a multiple of it, as attention's blocks are
_SPARE = 1.3  # supervised positions of a row beyond its share: they cost little, and should not be what closes a row


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a slot of a row costs in a step, in multiplications: `vlm_jax.models.parameters.multiplications`."""

    token: float = 1.0
    patch: float = 0.2
    supervised: float = 0.1
    above: tuple[float, ...] = ()
    """Of a token above each cut within the decoder, up to the next."""

    @property
    def columns(self) -> tuple[float, ...]:
        """In the order of `Size.columns`."""
        return self.token, self.patch, self.supervised, *self.above

    @classmethod
    def of(cls, model: VLMConfig, budget: TokenBudget) -> "Costs":
        token, patch, supervised = multiplications(model)
        depth = model.decoder.layers
        ends = [*cut_layers(budget.method, budget.layer, depth), depth] if budget.cuts else [depth]
        parts = [token * (stop - start) / depth for start, stop in zip([0, *ends[:-1]], ends, strict=True)]
        return cls(parts[0], patch, supervised, tuple(parts[1:]))


def choose_buckets(
    sizes: Int[np.ndarray, "n columns"],
    *,
    rows: int,
    tokens: int,
    max_sequence_length: int,
    count: int,
    patches: int = 0,
    supervised: int = 0,
    block_slots: int,
    rows_multiple: int = 1,
    costs: Costs = Costs(),
    every: Int[np.ndarray, "m columns"] | None = None,
) -> list[Bucket]:
    """The shapes of batches that suit the data.

    The first has `tokens` a row. Where examples are longer, others follow, with rows as long as the longest up to
    `max_sequence_length`, and fewer, so that a step costs about the same. What is left of `count` gives rows as long as
    the first, with more patch slots, where that pays. The last bucket holds whatever any other holds.

    Args:
      sizes: of the examples, or of a sample of them, each as often as it is seen.
      every: sizes that must fit as well, however seldom they are seen.
      count: at most so many buckets, one to four.
      patches, supervised: of the first bucket; 0 for what suits the data.
      block_slots: patch slots of an attention window, of which `patches` is a multiple.
      rows_multiple: what rows are divided among: devices that hold different rows.

    Raises:
      InputError: no examples, or patches that are no multiple of a window.
    """
    if not len(sizes):
        raise InputError("no examples to choose a row size from")
    if patches % block_slots:
        raise InputError(f"batch.patches {patches} is not a multiple of {block_slots}, one attention window")
    every = sizes if every is None else np.concatenate([sizes, every])
    longest = min(int(every[:, 0].max()), max_sequence_length)
    lengths = [tokens]
    if count > 1 and longest > tokens:
        steps = min(count - 1, max(1, int(np.ceil(np.log2(longest / tokens)))))
        for step in range(1, steps + 1):
            length = tokens * (longest / tokens) ** (step / steps)
            lengths.append(min(max_sequence_length, int(-(-length // 128) * 128)))
    fit = lengths[-1]
    trial = _Trial(sizes[sizes[:, 0] <= fit], every[every[:, 0] <= fit], block_slots, costs, (patches, supervised))
    chosen, cost = trial.sizes(lengths)
    while len(lengths) < count and trial.images:
        lengths = [tokens, *lengths]
        more, lower = trial.sizes(lengths)
        if lower > _WORTH * cost:
            break
        chosen, cost = more, lower

    return [Bucket(rows_of(size.tokens, rows, tokens, rows_multiple), size) for size in chosen]


def rows_of(length: int, rows: int, tokens: int, multiple: int) -> int:
    """Rows of a bucket of `length` tokens a row, beside one of `rows` of `tokens`: what costs about the same."""
    return rows if length == tokens else max(multiple, rows * tokens // length // multiple * multiple)


class _Trial:
    """A sample of the data packed into rows of one size after another."""

    def __init__(
        self,
        sizes: Int[np.ndarray, "n columns"],
        every: Int[np.ndarray, "m columns"],
        block_slots: int,
        costs: Costs,
        fixed: tuple[int, int],
    ):
        sizes = sizes if len(sizes) else every
        self._all, self._total = every, sizes.sum(axis=0)
        self._sample = sizes[:: max(1, -(-len(sizes) // _TRIED))]
        self._block, self._fixed = block_slots, fixed
        self._costs = np.array(costs.columns)
        self.images = bool(len(every)) and bool(every[:, 1].any())

    def sizes(self, lengths: Sequence[int]) -> tuple[list[Size], float]:
        """Rows of these lengths, shortest first, and the cost of the sample in them."""
        if not len(self._all):  # nothing is as short as that: the errors that follow tell which and why
            above = (lengths[-1],) * (len(self._costs) - 3)
            size = Size(lengths[-1], self._fixed[0] or self._block, self._fixed[1] or 32, above)
            return [size], float("inf")
        largest = self._all.max(axis=0)
        share = float(self._total[1] / self._total[0])
        slots = [self._blocks(share * length) for length in lengths]
        patches = self._fixed[0]
        slots[0] = patches or slots[0]
        if not patches or len(slots) > 1:
            slots[-1] = max(slots[0], slots[-1], self._blocks(float(largest[1])))
        best = self._cost(lengths, slots)
        for _ in range(_ROUNDS if self.images else 0):
            before = best
            for number, length in reversed(list(enumerate(lengths))):
                if patches and number == 0:
                    continue
                for part in _SHARES:
                    candidate = self._blocks(part * share * length)
                    tried = [*slots[:number], candidate, *slots[number + 1 :]]
                    if candidate not in (slots[number], 0) and tried == sorted(tried):
                        cost = self._cost(lengths, tried)
                        if cost < best:
                            best, slots = cost, tried
            if best == before:
                break
        rooms = _ROOMS if len(self._costs) > 3 else _ROOMS[:1]
        best, room = min((self._cost(lengths, slots, room), room) for room in rooms)
        return self._rows(lengths, slots, room), best

    def _blocks(self, slots: float) -> int:
        return max(1, int(-(-slots // self._block))) * self._block

    def _rows(self, lengths: Sequence[int], slots: Sequence[int], spare: float = _ROOMS[0]) -> list[Size]:
        rows, supervised = [], self._fixed[1]
        for number, (length, room) in enumerate(zip(lengths, slots, strict=True)):
            inside = self._all[(self._all[:, 0] <= length) & (self._all[:, 1] <= room)]
            most = int(inside[:, 2].max()) if len(inside) else 1
            if number or not supervised:
                estimate = max(most, _SPARE * length * self._total[2] / self._total[0])
                supervised = max(supervised if number else 0, int(-(-estimate // 32) * 32))
            rows.append(Size(length, room, supervised, self._above(length, spare, inside, number == len(slots) - 1)))
        return rows

    def _above(self, length: int, spare: float, inside: Int[np.ndarray, "n columns"], last: bool) -> tuple[int, ...]:
        """Tokens of a row of `length` above each cut: so many times its share, and in the last bucket what any of these
        examples takes. Elsewhere one that is all text goes to the next bucket, and leaves rows with images short."""
        wanted = spare * length * self._total[3:] / self._total[0]
        if last and len(inside):
            wanted = np.maximum(wanted, inside[:, 3:].max(axis=0))
        return tuple(min(length, int(-(-tokens // _ABOVE) * _ABOVE)) for tokens in wanted.tolist())

    def _cost(self, lengths: Sequence[int], slots: Sequence[int], spare: float = _ROOMS[0]) -> float:
        """Multiplications of the rows that the sample takes; infinite where an example fits none."""
        rows = self._rows(lengths, slots, spare)
        limits = as_array(rows)
        if (bucket_of(self._all, limits) < 0).any():
            return float("inf")
        return float(rows_filled(self._sample, rows) @ limits @ self._costs)


def rows_filled(sizes: Int[np.ndarray, "n columns"], rows: Sequence[Size]) -> Float[np.ndarray, " buckets"]:
    """How many rows of each of these sizes examples take, one packed after the other."""
    limits = as_array(rows)
    packer, filled = Packer([Bucket(1, size) for size in rows]), np.zeros(len(rows))
    for one in sizes:
        closed = packer.add((0, 0), one)
        if closed is not None:
            filled[closed[0]] += 1
    for bucket, limit in enumerate(limits):
        # Rows that are still open count by how full they are: a run has many more examples than the sample.
        shares = np.delete(1 - packer.free(bucket) / limit, 2, axis=1)  # of supervised positions there are plenty
        filled[bucket] += sum(shares.max(axis=1))
    return filled


def examples_in(sizes: Int[np.ndarray, "n columns"], buckets: Sequence[Bucket], steps: float) -> float:
    """How many examples, one packed after the other, so many batches hold once all rows are closed.

    Exact where they are among those given, in their order; else as many more as these fill.
    """
    packer, closed = Packer(buckets), np.zeros(len(buckets), np.int64)
    rows = np.array([bucket.rows for bucket in buckets])
    for count, one in enumerate(sizes):
        if (row := packer.add((0, 0), one)) is not None:
            closed[row[0]] += 1
        opened = [len(packer.free(bucket)) for bucket in range(len(buckets))]
        if (-(-(closed + opened) // rows)).sum() > steps:
            return float(count)
    filled = rows_filled(sizes, [bucket.size for bucket in buckets])
    return steps * len(sizes) / max(float((filled / rows).sum()), 1e-9)

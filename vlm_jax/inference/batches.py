"""Which prompts are answered at one time: alike in length, those about one image together, as many as memory holds."""

import os
import typing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import jax

from vlm_jax.inference import prefixes
from vlm_jax.inference.decoding import bucket
from vlm_jax.inference.prompt_rows import patches_of
from vlm_jax.models.config import VLMConfig
from vlm_jax.processing.example import Example, Size

MOST = 256
"""At one time, however much memory there is: more are hardly quicker, and an answer that is long holds up all."""
MOST_ON_CPU = 32
SHARE = 0.5
"""Of the memory that is free when a batch is chosen: what a program takes beside `bytes_of` is not known before."""
IN_FLIGHT = 2
"""Batches at one time: while one is put together, or decodes and leaves a CPU's cores idle, another computes."""


Found = typing.TypeVar("Found")


def side_by_side(do: Callable[[list[int]], Found], batches: Sequence[list[int]], in_flight: int) -> Iterator[Found]:
    """What `do` finds for each batch, in their order, so many at a time.

    Raises:
      what `do` raises; those that have begun end first, the others never begin. So too where the caller stops.
    """
    if min(len(batches), in_flight) < 2:
        yield from map(do, batches)
        return
    pool = ThreadPoolExecutor(in_flight, thread_name_prefix="batch")
    try:
        for future in [pool.submit(do, batch) for batch in batches]:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def in_batches(
    prompts: Sequence[Example], limits: Sequence[int], *, most: int, fits: "Fits | None" = None
) -> list[list[int]]:
    """The numbers of prompts that are answered at one time, batch by batch, the shortest first.

    Args:
      limits: tokens that the answer to each may have.
      most: of a batch.
      fits: whether memory holds a batch; None: it does.
    """
    groups: dict[object, list[int]] = {}
    for number, prompt in enumerate(prompts):
        groups.setdefault(prefixes.image_digests(prompt) if prompt.images else number, []).append(number)
    longest = {key: max(prompts[number].size for number in members) for key, members in groups.items()}
    order = [number for key in sorted(groups, key=lambda key: (longest[key], groups[key][0])) for number in groups[key]]
    batches = []
    while order:
        count = min(most, len(order))
        while (
            count > 1
            and fits
            and not fits([prompts[n].size for n in order[:count]], max(limits[n] for n in order[:count]))
        ):
            # Rows are a power of two: the next smaller one.
            count = 1 << (count - 1).bit_length() - 1
        batches.append(order[:count])
        order = order[count:]
    return batches


class Fits:
    """Whether memory holds a batch, by what its arrays take.

    Estimated: keys and values of every token twice (as they come out of the layers, and in the cache), those of the
    caches of all that are in flight, the widest activations of a layer, and float32 logits.
    """

    def __init__(self, config: VLMConfig, itemsize: int, memory: int):
        """
        Args:
          itemsize: bytes of a value.
          memory: bytes that a batch may take.
        """
        decoder, vision = config.decoder, config.vision
        self.memory = memory
        self._entry = 2 * decoder.layers * decoder.kv_heads * decoder.head_dim * itemsize
        self._token = self._entry + (8 * decoder.hidden + 3 * decoder.mlp) * itemsize
        self._patch = (8 * vision.hidden + 3 * vision.mlp) * itemsize
        self._conversation = 3 * 4 * decoder.vocab

    def bytes_of(self, sizes: Sequence[Size], limit: int) -> int:
        """Of a batch of prompts of these sizes, with answers of so many tokens."""
        rows = 1 << (len(sizes) - 1).bit_length()
        entries = rows * bucket(max(size.tokens for size in sizes) + limit)
        tokens = sum(size.tokens for size in sizes)
        return (
            self._entry * entries * IN_FLIGHT
            + self._token * 2 * tokens  # rows are at least half full
            + self._patch * patches_of(sizes)
            + self._conversation * rows
        )

    def __call__(self, sizes: Sequence[Size], limit: int) -> bool:
        return self.bytes_of(sizes, limit) <= self.memory


def free_memory() -> int | None:
    """Bytes of the first device that nothing has taken yet; of a CPU those of the machine; None: not known."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if device.platform != "cpu" or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

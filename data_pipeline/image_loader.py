"""Images read, resized and cut into patches by worker processes or in the calling thread, and kept for a while.

The result is the same either way. Workers load neither JAX nor transformers: they get a path or the bytes of a file and
send back uint8 patches. Which image belongs to which example is `loader`'.
"""

import concurrent.futures
import multiprocessing
import signal
import threading
from collections import OrderedDict
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.processing.images import with_image
from vlm_jax.processing.processor import Grid, ImageProcessor

Key = tuple[str | bytes, Grid]
"""A path (or an encoded file), and how it is cut."""


class ImageLoader:
    """Patches of images, uint8 [tokens, patches_per_token, values] each."""

    def __init__(self, images: ImageProcessor, *, workers: int = 0, cache_bytes: int = 0):
        """
        Args:
          images: what cuts them up; how far an image is scaled is its key's.
          workers: processes that decode; 0 decodes in the thread that asks.
          cache_bytes: how much is kept of what was decoded. Full, it keeps what it has: a data set that is larger than
            the cache is read round and round, and letting the oldest go would let go what comes next.
        """
        self._images = images
        self._room, self._lock = cache_bytes, threading.Lock()
        self._cache: OrderedDict[Key, np.ndarray] = OrderedDict()
        self._pool = None
        if workers:
            # Spawned: a fork of a process that holds threads and a device may hang.
            # Ctrl-C goes to every process of a terminal: here the main one alone decides what it means.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers,
                multiprocessing.get_context("spawn"),
                initializer=signal.signal,
                initargs=(signal.SIGINT, signal.SIG_IGN),
            )

    def patches(self, keys: list[Key]) -> list[np.ndarray | InputError]:
        """Patches of each, or why there are none: one unreadable image does not hide the others."""
        found: dict[Key, np.ndarray | InputError] = {}
        missing = []
        for key in dict.fromkeys(keys):
            cached = self._cache.get(key)
            if cached is None:
                missing.append(key)
            else:
                found[key] = cached
        # All are on their way before the first is waited for.
        if self._pool is not None:
            results = self._decoded(missing)
        else:
            results = [decode(*key, self._images) for key in missing]
        for key, result in zip(missing, results, strict=True):
            found[key] = result
            if isinstance(result, np.ndarray):
                self._keep(key, result)
        return [found[key] for key in keys]

    def processes(self) -> list[int]:
        """Process ids of the workers that were started."""
        return sorted(self._pool._processes) if self._pool is not None else []

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _decoded(self, keys: list[Key]) -> list[np.ndarray | InputError]:
        try:
            futures = [self._pool.submit(decode, *key, self._images) for key in keys]
            return [future.result() for future in futures]
        except BrokenProcessPool:
            raise InputError(
                "a worker process that decodes images was killed, perhaps for want of memory; lower data.workers"
            ) from None

    def _keep(self, key: Key, patches: np.ndarray) -> None:
        size = patches.nbytes + (len(key[0]) if isinstance(key[0], bytes) else 0)
        with self._lock:
            if size <= self._room and key not in self._cache:
                self._cache[key] = patches
                self._room -= size


def decode(source: str | bytes, grid: Grid, images: ImageProcessor) -> np.ndarray | InputError:
    """An image's patches, or its error, which is returned so that it crosses processes as it is."""
    try:
        content = locations.read_bytes(source) if isinstance(source, str) and locations.is_remote(source) else source
        return with_image(content, lambda image: images.cut(image, grid))
    except InputError as error:
        return error
    except OSError as error:  # a store that does not answer
        return InputError(f"{source if isinstance(source, str) else 'embedded image'}: cannot be read ({error})")

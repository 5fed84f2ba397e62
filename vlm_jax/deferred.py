"""Arrays of known shape that are read part by part, when a part is asked for.

Weights travel from files to devices and from files to files as these, so that neither a model nor one of its stacks is
on the host as a whole: `array[layer]` reads a layer, `array[part]` what one device holds. Where the values come from
(a mapped file, a checkpoint, a sum with an adapter) is the business of whoever makes one.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Within = tuple[slice, ...]


class Deferred:
    """An array that nobody has read yet.

    Attributes:
      stacked: whether the first axis is of layers, each of which is read by itself.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, read: Callable[[int | None, Within], Any], *, stacked: bool = False
    ):
        """
        Args:
          read: `read(layer, within)` gives the part of a layer that `within` cuts out of it, a slice an axis; of an
            array that is not stacked, `layer` is None. It may give a view, which is only read.
        """
        self.shape, self.dtype, self.stacked = tuple(shape), np.dtype(dtype), stacked
        self._read = read

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part, by whole numbers and slices of step 1, as of a NumPy array.

        One layer may be a view of the file it is read from; everything else is memory of its own, which JAX may take
        over without copying it.
        """
        key = key if isinstance(key, tuple) else (key,)
        if Ellipsis in key:
            place = key.index(Ellipsis)
            key = (*key[:place], *[slice(None)] * (self.ndim - len(key) + 1), *key[place + 1 :])
        key += (slice(None),) * (self.ndim - len(key))
        box = tuple(
            slice(*one.indices(size)[:2]) if isinstance(one, slice) else slice(range(size)[one], range(size)[one] + 1)
            for one, size in zip(key, self.shape, strict=True)
        )
        index = tuple(slice(None) if isinstance(one, slice) else 0 for one in key)
        if not self.stacked:
            return self._filled(box, lambda whole: copy_into(whole, np.asarray(self._read(None, box))))[index]
        if not isinstance(key[0], slice):
            return np.asarray(self._read(box[0].start, box[1:]))[index[1:]]

        def fill(whole: np.ndarray) -> None:
            for place, layer in enumerate(range(box[0].start, box[0].stop)):
                copy_into(whole[place], np.asarray(self._read(layer, box[1:])))

        return self._filled(box, fill)[index]

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        whole = self[...]
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def astype(self, dtype: Any) -> "Deferred":
        """The same values in another dtype, each part cast as it is read."""
        target = np.dtype(dtype)
        if target == self.dtype:
            return self
        return Deferred(
            self.shape, target, lambda *at: np.asarray(self._read(*at)).astype(target), stacked=self.stacked
        )

    def _filled(self, box: Within, fill: Callable[[np.ndarray], None]) -> np.ndarray:
        whole = aligned(tuple(max(0, one.stop - one.start) for one in box), self.dtype)
        fill(whole)
        return whole


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory to be filled, which JAX takes over on a CPU: it copies what does not begin at a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    room = np.empty(size + 64, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size].view(dtype).reshape(shape)


def deferred(array: Any) -> Deferred:
    """An array that is in memory, as one that is read; one that is deferred, as it is."""
    if isinstance(array, Deferred):
        return array
    return Deferred(array.shape, array.dtype, lambda _, within: np.asarray(array[within]))


def copy_into(target: np.ndarray, source: np.ndarray) -> None:
    """`target[...] = source`, where the source is turned (a view of a transpose) a few columns at a time.

    Element after element of a turned matrix lies in another cache line; of 32 columns together each is used up.
    """
    if source.ndim == 2 and abs(source.strides[0]) < abs(source.strides[1]):
        for start in range(0, source.shape[1], 32):
            target[:, start : start + 32] = source[:, start : start + 32]
    else:
        target[...] = source

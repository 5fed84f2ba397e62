"""The layers of one shape that a tower or a decoder is made of, run by one `lax.scan`, or unrolled; all or a range."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from vlm_jax.models.remat import POLICIES

_TAKING = frozenset({"dynamic_slice", "squeeze", "reshape", "convert_element_type"})
"""What takes a layer's parameters out of a stack, and costs nothing to do again."""


def _all_but_slices(primitive, *_, **__) -> bool:
    """A policy of `jax.checkpoint`: everything is kept but what a layer is taken out of the stack by."""
    return primitive.name not in _TAKING


SHALLOW = 8
"""Layers of a stack that are worth unrolling, at most: each is compiled by itself then."""


class Stack(nnx.Module):
    """`depth` layers of one shape whose parameters carry a leading [depth] axis.

    `period` layers are unrolled in the scanned body; the body tells them apart by their static place, so layers of
    one shape may still compute different things (windowed and global attention, say).
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs):
        self.layer = nnx.vmap(make)(rngs.split(depth))
        self.depth = depth
        self.apart: list[nnx.Module] | None = nnx.data(None)
        """The layers one by one, where there are such too: unrolled, it takes these. Out of the stack a CPU copies each
        layer before it uses it."""

    def __call__(
        self,
        carry,
        apply: Callable,
        *,
        xs=None,
        period: int = 1,
        remat: str = "none",
        unroll: bool = False,
        last: Callable | None = None,
        start: int = 0,
        stop: int | None = None,
    ):
        """Folds `apply(layer, carry, x, place) -> (carry, y)` over the layers [start, stop).

        Args:
          carry: any tree of arrays. Between two ranges it may be given another shape.
          apply: called with the merged layer, the carry, this layer's slice of `xs`, and `place` in [0, period).
          xs: optional tree with a leading [depth] axis, a slice for each layer (a KV cache, say), of all layers also
            where a range runs.
          period: how many layers one scanned body holds; divides depth, start and stop.
          remat: a key of `remat.POLICIES`.
          unroll: the layers are unrolled. A CPU, for which a scan makes and fills a stack of everything that is kept
            for the backward pass, takes a sixth less time; compiling takes longer, and `remat` spares a CPU no memory
            then.
          last: with `unroll`, what is applied to the last layer of the stack instead; its carry may have another shape.
          start, stop: the layers that run; all unless said otherwise.

        Returns:
          (carry, ys) with ys stacked over the layers that ran.
        """
        stop = self.depth if stop is None else stop
        if not 0 <= start < stop <= self.depth or start % period or stop % period:
            raise ValueError(f"layers {start} to {stop} of {self.depth} in periods of {period}")
        graph, params = nnx.split(self.layer)
        if unroll:
            return self._unrolled(graph, (params, xs), carry, apply, last or apply, period, remat, range(start, stop))
        if (start, stop) != (0, self.depth):
            return self._range(graph, (params, xs), carry, apply, period, remat, range(start, stop))

        # What a layer keeps for the backward pass is the whole slice of the period, as the scan hands it out: then no
        # copy of it is made. A slice taken out here would be stacked again, a second copy of every kernel.
        def one(place, carry, slices):
            params, x = jax.tree.map(lambda leaf: leaf[place], slices) if period > 1 else slices
            return apply(nnx.merge(graph, params), carry, x, place)

        if remat != "none":
            one = jax.checkpoint(one, policy=POLICIES[remat], static_argnums=(0,))

        def fold(leaf):
            return leaf.reshape(self.depth // period, period, *leaf.shape[1:]) if period > 1 else leaf

        def body(carry, slices):
            return _period(one, carry, slices, period)

        carry, ys = jax.lax.scan(body, carry, jax.tree.map(fold, (params, xs)))
        return carry, _joined(ys, period)

    def _unrolled(self, graph, whole, carry, apply, last, period: int, remat: str, numbers: range):
        params, xs = whole
        layers = unstacked(params, self.depth) if self.apart is None else [nnx.state(layer) for layer in self.apart]
        outs, slices = [], unstacked(xs, self.depth)
        for number in numbers:
            one = last if number == self.depth - 1 else apply

            def run(layer, carry, x, one=one, place=number % period):
                return one(nnx.merge(graph, layer), carry, x, place)

            if remat != "none":
                run = jax.checkpoint(run, policy=POLICIES[remat])
            carry, out = run(layers[number], carry, slices[number])
            outs.append(out)
        return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)

    def _range(self, graph, whole, carry, apply, period: int, remat: str, numbers: range):
        """Some of the layers. Each is taken out of the stack by its number as the loop comes to it, and anew in the
        backward pass: a part of the stack as the scan's input would be a second copy of its kernels, and so would be
        slices that are kept."""

        def one(place, carry, first):
            def layer_slice(leaf):
                return jax.lax.dynamic_index_in_dim(leaf, first + place, keepdims=False)

            params, x = jax.tree.map(layer_slice, whole)
            return apply(nnx.merge(graph, params), carry, x, place)

        one = jax.checkpoint(one, policy=POLICIES[remat] or _all_but_slices, static_argnums=(0,))
        firsts = jnp.arange(numbers.start, numbers.stop, period)
        carry, ys = jax.lax.scan(lambda carry, first: _period(one, carry, first, period), carry, firsts)
        return carry, _joined(ys, period)


def _period(one: Callable, carry, slices, period: int):
    """The body of a scan: `period` layers."""
    outs = []
    for place in range(period):
        carry, out = one(place, carry, slices)
        outs.append(out)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs) if period > 1 else outs[0]


def _joined(ys, period: int):
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ys) if period > 1 else ys


def unstacked(tree, depth: int) -> list:
    """`depth` trees, one for each place of the leading axis of all leaves.

    The gradients of the parts are put side by side; those of as many indexings are padded with zeros and added up.
    """
    leaves, shape = jax.tree.flatten(tree)
    parts = [jax.lax.split(leaf, (1,) * depth) for leaf in leaves]
    return [jax.tree.unflatten(shape, [part[number][0] for part in parts]) for number in range(depth)]


@functools.cache
def repeating_period(depth: int, marked: tuple[int, ...]) -> int:
    """The smallest period of the pattern "index in marked" over `depth` layers (depth itself if there is none)."""
    pattern = [index in marked for index in range(depth)]
    for period in range(1, depth + 1):
        if depth % period == 0 and all(pattern[i] == pattern[i % period] for i in range(depth)):
            return period
    return depth

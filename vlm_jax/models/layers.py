"""The layers every part of the model is made of, and the stack that scans them.

Parameters keep their own dtype; every product runs in the dtype of its input, so the compute dtype is decided once,
where pixels and token embeddings enter.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

ROW_AXES = ("data", "fsdp")
"""Axes of the mesh that the rows of a batch are divided over."""


def rows_apart(x: Float[Array, " b *rest"]) -> Float[Array, " b *rest"]:
    """The same values, each row whole on the devices whose row it is; without a mesh (`jax.set_mesh`) nothing is done.

    The compiler works out the rest from this. Left to itself it gave every device a slice of the width of all rows of
    the tower, since that is how the kernels lie.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROW_AXES, *[None] * (x.ndim - 1)))


def product(x: Float[Array, "*b i"], kernel: Float[Array, "i o"], **how) -> Float[Array, "*b o"]:
    """`x @ kernel`, in the dtype of x, with every axis but the last as one.

    The same to an accelerator. On CPUs XLA lays out the gradient of a kernel anew, element by element, where it has to
    sum over more than one axis, and takes twice the time.
    """
    flat = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel.astype(x.dtype), **how)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


class Linear(nnx.Module):
    """`x @ kernel + bias` with kernel [in, out].

    `vlm_jax.adapters` may replace the kernel by a module that computes the product, and add one beside it.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool, std: float, dtype, rngs: nnx.Rngs):
        self.kernel = nnx.data(nnx.Param(std * jax.random.normal(rngs.params(), (in_features, out_features), dtype)))
        self.bias = nnx.Param(jnp.zeros((out_features,), dtype)) if bias else None
        self.adapter = nnx.data(None)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        y = self.kernel(x) if isinstance(self.kernel, nnx.Module) else product(x, self.kernel[...])
        if self.bias is not None:
            y = y + self.bias[...].astype(x.dtype)
        return y if self.adapter is None else y + self.adapter(x)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """[…, in, out], with a leading axis in a stack."""
        return self.kernel.shape if isinstance(self.kernel, nnx.Module) else tuple(self.kernel.get_value().shape)


class RMSNorm(nnx.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019), statistics in float32."""

    def __init__(self, features: int, *, eps: float, dtype):
        self.scale = nnx.Param(jnp.ones((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        return self.scale[...].astype(x.dtype) * wide.astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer norm (Ba et al. 2016), statistics in float32."""

    def __init__(self, features: int, *, eps: float, dtype):
        self.scale = nnx.Param(jnp.ones((features,), dtype))
        self.bias = nnx.Param(jnp.zeros((features,), dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        wide = x.astype(jnp.float32)
        wide = wide - wide.mean(axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        wide = wide * self.scale[...].astype(jnp.float32) + self.bias[...].astype(jnp.float32)
        return wide.astype(x.dtype)


class MLP(nnx.Module):
    """`fc2(activation(fc1(x)))`."""

    def __init__(self, hidden: int, mlp: int, *, activation: Callable, std: float, dtype, rngs: nnx.Rngs):
        self.fc1 = Linear(hidden, mlp, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(mlp, hidden, bias=True, std=std, dtype=dtype, rngs=rngs)
        self.activation = activation

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.fc2(self.activation(self.fc1(x)))


def quick_gelu(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """CLIP's approximation of GELU: x · σ(1.702 x)."""
    return x * jax.nn.sigmoid(1.702 * x)


@jax.custom_vjp
def gated(gate: Float[Array, "*b d"], up: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """silu(gate) · up, which keeps nothing but the two for its gradient."""
    return jax.nn.silu(gate) * up


def _gated_forward(gate, up):
    return gated(gate, up), (gate, up)


def _gated_backward(kept, gradient):
    gate, up = kept
    share = jax.nn.sigmoid(gate)
    silu = gate * share
    return gradient * up * (share + silu * (1 - share)), gradient * silu


gated.defvjp(_gated_forward, _gated_backward)


class GatedMLP(nnx.Module):
    """SwiGLU: `down(silu(gate(x)) * up(x))`."""

    def __init__(self, hidden: int, mlp: int, *, bias: bool, std: float, dtype, rngs: nnx.Rngs):
        self.gate_proj = Linear(hidden, mlp, bias=bias, std=std, dtype=dtype, rngs=rngs)
        self.up_proj = Linear(hidden, mlp, bias=bias, std=std, dtype=dtype, rngs=rngs)
        self.down_proj = Linear(mlp, hidden, bias=bias, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
        return self.down_proj(gated(self.gate_proj(x), self.up_proj(x)))


REMAT_POLICIES: dict[str, Callable | None] = {
    # name -> what a layer keeps for the backward pass; None: everything (no rematerialisation)
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


SHALLOW = 8
"""Layers of a stack that are worth writing out, at most: each is compiled by itself then."""


class Stack(nnx.Module):
    """`depth` layers of one shape whose parameters carry a leading [depth] axis, run by one `lax.scan`, or written out.

    `period` layers are unrolled in the scanned body; the body tells them apart by their static place, so layers of
    one shape may still compute different things (windowed and global attention, say).
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs):
        self.layer = nnx.vmap(make)(rngs.split(depth))
        self.depth = depth

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
    ):
        """Folds `apply(layer, carry, x, place) -> (carry, y)` over the layers.

        Args:
          carry: any tree of arrays.
          apply: called with the merged layer, the carry, this layer's slice of `xs`, and `place` in [0, period).
          xs: optional tree with a leading [depth] axis, a slice for each layer (a KV cache, say).
          period: how many layers one scanned body holds; divides depth.
          remat: a key of `REMAT_POLICIES`.
          unroll: the layers are written out one after another. A CPU, for which a scan makes and fills a stack of
            everything that is kept for the backward pass, takes a sixth less time; compiling takes longer, and `remat`
            spares a CPU no memory then.
          last: with `unroll`, what is applied to the last layer instead; its carry may have another shape.

        Returns:
          (carry, ys) with ys stacked over [depth].
        """
        graph, params = nnx.split(self.layer)
        if unroll:
            outs = []
            for number, (layer, x) in enumerate(unstacked((params, xs), self.depth)):
                one = last if last is not None and number == self.depth - 1 else apply

                def run(layer, carry, x, one=one, place=number % period):
                    return one(nnx.merge(graph, layer), carry, x, place)

                if remat != "none":
                    run = jax.checkpoint(run, policy=REMAT_POLICIES[remat])
                carry, out = run(layer, carry, x)
                outs.append(out)
            return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)

        # What a layer keeps for the backward pass is the whole slice of the period, as the scan hands it out: then no
        # copy of it is made. A slice taken out here would be stacked again, a second copy of every kernel.
        def one(place, carry, slices):
            params, x = jax.tree.map(lambda leaf: leaf[place], slices) if period > 1 else slices
            return apply(nnx.merge(graph, params), carry, x, place)

        if remat != "none":
            one = jax.checkpoint(one, policy=REMAT_POLICIES[remat], static_argnums=(0,))

        def body(carry, slices):
            outs = []
            for place in range(period):
                carry, out = one(place, carry, slices)
                outs.append(out)
            return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs) if period > 1 else outs[0]

        def fold(leaf):
            return leaf.reshape(self.depth // period, period, *leaf.shape[1:]) if period > 1 else leaf

        carry, ys = jax.lax.scan(body, carry, jax.tree.map(fold, (params, xs)))
        if period > 1:
            ys = jax.tree.map(lambda leaf: leaf.reshape(self.depth, *leaf.shape[2:]), ys)
        return carry, ys


def unstacked(tree, depth: int) -> list:
    """`depth` trees, one for each place of the leading axis of all leaves.

    The gradients of the parts are put side by side; those of as many indexings are padded with zeros and added up.
    """
    leaves, shape = jax.tree.flatten(tree)
    parts = [jax.lax.split(leaf, (1,) * depth) for leaf in leaves]
    return [jax.tree.unflatten(shape, [part[number][0] for part in parts]) for number in range(depth)]


def picked(x: Float[Array, "b t d"], at: Int[Array, "b n"]) -> Float[Array, "b n d"]:
    """The places `at` of each row."""
    return jnp.take_along_axis(x, at[..., None], axis=1)


@functools.cache
def repeating_period(depth: int, marked: tuple[int, ...]) -> int:
    """The smallest period of the pattern "index in marked" over `depth` layers (depth itself if there is none)."""
    pattern = [index in marked for index in range(depth)]
    for period in range(1, depth + 1):
        if depth % period == 0 and all(pattern[i] == pattern[i % period] for i in range(depth)):
            return period
    return depth

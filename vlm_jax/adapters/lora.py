"""Low-rank adapters (LoRA, Hu et al. 2021): a small product beside a frozen one.

Adapters are attached to a model whose arrays are still shapes; their parameters then have paths like any other
(`decoder/layers/layer/mlp/up_proj/adapter/a`), and which of all parameters train is decided elsewhere. Reading and
writing PEFT folders is `vlm_jax.checkpoint.peft_folder`'s.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from vlm_jax.deferred import Deferred
from vlm_jax.models.parameters import Flat, linears, matching
from vlm_jax.models.vlm import VLM

TARGETS = {
    "attention": r"decoder/.*attention/[qkvo]_proj",
    "mlp": r"decoder/.*mlp/(gate|up|down)_proj",
    "vision": r"vision/.*",
    "connector": r"connector/.*",
}
"""Names for the usual choices; any other regular expression over the paths of linear layers works as well."""


class Seed(nnx.Variable):
    """What a layer's dropout is drawn from: given anew for each step, never saved."""


class LowRank(nnx.Module):
    """`scale · (dropout(x) @ a) @ b` with a [in, rank], b [rank, out] in float32; computed in the dtype of x."""

    def __init__(self, kernel_shape: tuple[int, ...], rank: int, *, scale: float, dropout: float):
        *lead, features_in, features_out = kernel_shape
        self.a = nnx.Param(jax.ShapeDtypeStruct((*lead, features_in, rank), jnp.float32))
        self.b = nnx.Param(jax.ShapeDtypeStruct((*lead, rank, features_out), jnp.float32))
        self.seed = nnx.data(Seed(jax.ShapeDtypeStruct((*lead, 2), jnp.uint32)) if dropout else None)
        self.scale, self.dropout = scale, dropout

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        if self.seed is not None:
            mask = jax.random.bernoulli(jax.random.wrap_key_data(self.seed[...]), 1 - self.dropout, x.shape)
            x = jnp.where(mask, x / (1 - self.dropout), 0)
        return ((x @ self.a[...].astype(x.dtype)) @ self.b[...].astype(x.dtype)) * self.scale


@dataclasses.dataclass(frozen=True)
class Lora:
    """Which linear layers get an adapter, and what kind.

    Attributes:
      targets: keys of `TARGETS` with + between, or a regular expression over paths such as
        `decoder/layers/layer/attention/q_proj`.
      rslora: scale by alpha / √rank (Kalajdzievski 2023) instead of alpha / rank.
      dropout: share of an adapter's inputs that is left out in training.
    """

    rank: int
    alpha: float
    targets: str = "attention+mlp"
    rslora: bool = False
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def attach(self, model: VLM) -> None:
        """Gives the targets of a model of shapes (`parameters.abstract_model`) their adapters.

        Raises:
          InputError: the targets match no linear layer, or are no regular expression.
        """
        layers = linears(model)
        for path in self.chosen(list(layers)):
            linear = layers[path]
            linear.adapter = LowRank(linear.kernel_shape, self.rank, scale=self.scale, dropout=self.dropout)

    def chosen(self, linears: list[str]) -> list[str]:
        """Of the paths of all linear layers, those that get an adapter."""
        return matching(linears, self.targets, TARGETS, setting="lora.targets", what="linear layers", whole=True)

    def without_dropout(self) -> "Lora":
        """The same for inference."""
        return dataclasses.replace(self, dropout=0.0)


def is_seed(path: str) -> bool:
    return path.endswith("/adapter/seed")


def is_adapter(path: str) -> bool:
    """Whether a parameter is one of an adapter's."""
    return path.endswith(("/adapter/a", "/adapter/b"))


def initial(path: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An adapter parameter before training: b is zero, so that nothing changes yet; a uniform, as PEFT draws it."""
    if path.endswith("/b"):
        return np.zeros(shape, np.float32)
    bound = 1 / math.sqrt(shape[-2])
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def seeds(abstract: Mapping[str, jax.ShapeDtypeStruct], key: Array) -> Flat:
    """Fresh dropout seeds for every path of `abstract` that is one."""
    return {
        path: jax.random.bits(jax.random.fold_in(key, zlib.crc32(path.encode())), leaf.shape, jnp.uint32)
        for path, leaf in abstract.items()
        if is_seed(path)
    }


def merged(parameters: Flat, lora: Lora, dtype: Any = None) -> Flat:
    """The base with its adapters added into the kernels, a layer at a time when it is read.

    The sum is taken in float32, as peft takes it, and cast to the kernel's dtype, or to `dtype`.
    """
    flat = {path: array for path, array in parameters.items() if not is_adapter(path)}
    for path in parameters:
        if path.endswith("/adapter/a"):
            place = path.removesuffix("/adapter/a")
            a, b = (np.asarray(parameters[f"{place}/adapter/{part}"], np.float32) for part in "ab")
            flat[f"{place}/kernel"] = _sum(flat[f"{place}/kernel"], a, b, lora.scale, dtype)
    return flat


def _sum(kernel: Any, a: np.ndarray, b: np.ndarray, scale: float, dtype: Any) -> Deferred:
    dtype = np.dtype(dtype or kernel.dtype)

    def read(layer: int | None, within: tuple[slice, ...]) -> np.ndarray:
        rows, columns = within
        part, at = (within, ()) if layer is None else ((layer, *within), layer)
        wide = np.asarray(kernel[part]).astype(np.float32)
        wide += (a[at][rows] @ b[at][:, columns]) * np.float32(scale)
        return wide.astype(dtype)

    return Deferred(kernel.shape, dtype, read, stacked=kernel.ndim == 3)

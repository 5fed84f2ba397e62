"""Parameters by path: the flat view that the weight table, the sharding rules and the checkpoints share.

A path reads like `decoder/layers/layer/mlp/up_proj/kernel`. Stacked layers are one parameter with a leading [depth].
"""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.layers import Linear
from vlm_jax.models.stack import Stack
from vlm_jax.models.vlm import VLM

Flat = dict[str, Any]


def abstract_model(config: VLMConfig, dtype=jnp.float32, *, attach: Sequence[Callable[[VLM], Any]] = ()) -> VLM:
    """The model with shapes in place of arrays: nothing is allocated.

    Args:
      attach: what changes its layers before anything is read into them (`vlm_jax.adapters`), in this order.
    """
    model = nnx.eval_shape(lambda: VLM(config, dtype=dtype, rngs=nnx.Rngs(0)))
    for change in attach:
        change(model)
    return model


def split_model(
    config: VLMConfig, dtype=jnp.float32, *, attach: Sequence[Callable[[VLM], Any]] = ()
) -> tuple[nnx.GraphDef, nnx.State]:
    """`nnx.split` of the abstract model; neither part may be changed, since a model without `attach` is split once."""
    return (
        _plain_split(config, jnp.dtype(dtype))
        if not attach
        else nnx.split(abstract_model(config, dtype, attach=attach))
    )


@functools.cache
def _plain_split(config: VLMConfig, dtype) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(abstract_model(config, dtype))


def flatten(state: nnx.State) -> Flat:
    """{path: array} of a state."""
    return {"/".join(map(str, path)): variable[...] for path, variable in nnx.to_flat_state(state)}


def abstract_parameters(
    config: VLMConfig, dtype=jnp.float32, *, attach: Sequence[Callable[[VLM], Any]] = ()
) -> dict[str, jax.ShapeDtypeStruct]:
    """{path: shape and dtype} of every parameter of a model."""
    return dict(_plain_parameters(config, jnp.dtype(dtype)) if not attach else _parameters(config, dtype, attach))


@functools.cache
def _plain_parameters(config: VLMConfig, dtype) -> dict[str, jax.ShapeDtypeStruct]:
    return _parameters(config, dtype, ())


def _parameters(config: VLMConfig, dtype, attach: Sequence[Callable[[VLM], Any]]) -> dict[str, jax.ShapeDtypeStruct]:
    _, state = split_model(config, dtype, attach=attach)
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(state)}


def replace(state: nnx.State, flat: Mapping[str, Any]) -> nnx.State:
    """The state with its leaves taken from `flat`, which must hold every path of it."""
    return map_by_path(lambda path, _: flat[path], state)


def map_by_path(f: Callable[[str, Any], Any], state: nnx.State) -> nnx.State:
    """Applies `f(path, leaf)` to every leaf of a state."""
    return nnx.map_state(
        lambda path, variable: variable.replace(f("/".join(map(str, path)), variable.get_value())), state
    )


def build(config: VLMConfig, flat: Mapping[str, Any]) -> VLM:
    """A model around given arrays; no array is copied."""
    graph, state = nnx.split(abstract_model(config))
    return nnx.merge(graph, replace(state, flat))


def linears(model: VLM) -> dict[str, Linear]:
    """{path: layer} of every linear layer that runs."""
    layers = {"/".join(map(str, path)): part for path, part in nnx.iter_modules(model) if isinstance(part, Linear)}
    return {path: part for path, part in layers.items() if not is_unused(path)}


def stacks(model: VLM) -> dict[str, Stack]:
    """{path: stack} of all layers that run."""
    every = {"/".join(map(str, path)): part for path, part in nnx.iter_modules(model) if isinstance(part, Stack)}
    return {path: part for path, part in every.items() if not is_unused(path)}


def is_unused(path: str) -> bool:
    """Whether a parameter is only carried along (`encoder.Unused`): nothing reads it, and it never trains."""
    return path.startswith("vision/unused/")


def matching(
    paths: Sequence[str], text: str, names: Mapping[str, str], *, setting: str, what: str, whole: bool = False
) -> list[str]:
    """The paths that a setting chooses.

    Args:
      text: keys of `names` with + between, or a regular expression, matched from the start of a path or the whole.
      setting, what: how an error calls the setting, and what the paths are of.

    Raises:
      InputError: no valid expression, or one that matches nothing.
    """
    parts = text.split("+")
    try:
        pattern = re.compile("|".join(names[part] for part in parts) if set(parts) <= set(names) else text)
    except re.error as error:
        raise InputError(
            f"{setting} {text!r} is neither made of {', '.join(names)} with + between nor a regular expression "
            f"({error})"
        ) from None
    chosen = [path for path in paths if (pattern.fullmatch if whole else pattern.match)(path)]
    if not chosen:
        raise InputError(
            f"{setting} {text!r} matches none of the {len(paths)} {what}; take of {', '.join(names)} with + between, "
            f"or an expression over paths such as {', '.join(sorted(paths)[:3])}"
        )
    return chosen


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} → {"a": {"b": x}}, the tree Orbax stores."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def unnest(tree: Mapping[str, Any], prefix: str = "") -> Flat:
    """The inverse of `nest`."""
    flat = {}
    for name, node in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        flat.update(unnest(node, path) if isinstance(node, Mapping) else {path: node})
    return flat


def multiplications(config: VLMConfig) -> tuple[float, float, float]:
    """Of the forward pass, without attention's products: per token of the decoder, per patch of the tower, and per
    supervised position, which alone go through the output layer. The connector counts with the patches it merges.
    """
    token = patch = 0.0
    for path, leaf in abstract_parameters(config).items():
        if leaf.ndim < 2 or not path.endswith("kernel") or is_unused(path):
            continue
        if path.startswith("vision"):
            patch += leaf.size
        elif path.startswith("connector"):
            patch += leaf.size / config.vision.merge_size**2
        elif path.startswith("decoder"):
            token += leaf.size
    return token, patch, float(config.decoder.hidden * config.decoder.vocab)

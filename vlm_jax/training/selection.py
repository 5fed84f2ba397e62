"""What trains, what is frozen and how it is held: decided from the settings, over parameter paths."""

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vlm_jax.adapters import quantised
from vlm_jax.adapters.lora import Lora, is_adapter, is_seed
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import abstract_parameters, is_unused, matching
from vlm_jax.models.token_reduction.learned import PREFIX

PRESETS = {
    "full": r".*",
    "frozen_vision": r"(?!vision/).*",
    "connector": r"(newline$|reducer/|connector/(?!.*adapter/).*)",
    "adapter": r".*/adapter/[ab]",
}
"""Names for the usual choices; any other regular expression over paths works as well."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """The parameters of a run.

    Attributes:
      abstract: shape and dtype of every one: what trains in any stage in float32, the rest as it is computed with.
      trainable: the paths that train.
      first: those that train in a first stage of their own; none where there is no such stage.
      attach: what makes the model of these parameters of a plain one (`parameters.abstract_model`).
      still: the same without dropout.
      quantised: kernels of the plain model that are held quantised, as codes and scales below their paths.
      seeds: what dropout draws from, given anew for each step.
    """

    abstract: dict[str, jax.ShapeDtypeStruct]
    trainable: frozenset[str]
    first: frozenset[str]
    attach: tuple[Callable, ...]
    still: tuple[Callable, ...]
    quantised: frozenset[str]
    seeds: dict[str, jax.ShapeDtypeStruct]
    lora: Lora | None
    quantise: str

    @property
    def moves(self) -> frozenset[str]:
        """What is not the base's when the run ends: what trains in any stage, and adapters."""
        return self.trainable | self.first | frozenset(filter(is_adapter, self.abstract))

    @property
    def beside_base(self) -> bool:
        """Whether what moves is kept by itself: beside quantised kernels, with adapters, or a connector alone."""
        connector = re.compile(PRESETS["connector"])
        return self.lora is not None or bool(self.quantised) or all(map(connector.match, self.moves))


def select(config: ConfigDict, model: VLMConfig, dtype) -> Selection:
    """The parameters of a run with these settings.

    Raises:
      InputError: targets or an expression that match nothing, adapters that nothing trains, or nothing to quantise.
    """
    settings = config.lora
    lora = (
        Lora(settings.rank, float(settings.alpha), settings.targets, settings.rslora, settings.dropout)
        if settings.rank
        else None
    )
    attach: tuple[Callable, ...] = (lora.attach,) if lora else ()
    still: tuple[Callable, ...] = (lora.without_dropout().attach,) if lora else ()
    paths = [path for path in abstract_parameters(model, attach=attach) if not is_seed(path) and not is_unused(path)]
    named = config.train.trainable
    if named == "auto":
        named = "adapter" if lora else "full"
    trainable = trainable_paths(paths, named)
    # What a method of token reduction learns has no use but to be trained.
    learned = frozenset(path for path in paths if path.startswith(PREFIX))
    trainable |= learned
    if lora and not any(map(is_adapter, trainable)):
        raise InputError(
            f"lora.rank is {lora.rank}, and train.trainable {named!r} trains no adapter; take adapter, or rank 0"
        )
    first = frozenset()
    if config.train.first.share:
        first = trainable_paths(paths, config.train.first.trainable, setting="train.first.trainable") | learned
    moves = trainable | first
    if config.model.quantise != "none":
        attach_quantised = functools.partial(quantised.attach, kind=config.model.quantise, keep=moves)
        attach, still = (attach_quantised, *attach), (attach_quantised, *still)

    def stored_leaf(path: str, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        if path in moves or is_adapter(path):
            return jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
        plain = jnp.issubdtype(leaf.dtype, jnp.floating) and not path.endswith("/scales")
        return jax.ShapeDtypeStruct(leaf.shape, dtype if plain else leaf.dtype)

    shapes = abstract_parameters(model, attach=attach)
    if config.model.quantise != "none" and not any(path.endswith("/kernel/scales") for path in shapes):
        raise InputError(
            f"config.model.quantise is {config.model.quantise!r}, and train.trainable {named!r} trains every kernel: "
            "nothing is left to be quantised; set lora.rank, or take none"
        )
    return Selection(
        {path: stored_leaf(path, leaf) for path, leaf in shapes.items() if not is_seed(path)},
        trainable,
        first,
        attach,
        still,
        frozenset(path.removesuffix("/scales") for path in shapes if path.endswith("/kernel/scales")),
        {path: leaf for path, leaf in shapes.items() if is_seed(path)},
        lora,
        config.model.quantise,
    )


def trainable_paths(paths: list[str], trainable: str, setting: str = "train.trainable") -> frozenset[str]:
    """Paths that train.

    Args:
      trainable: keys of `PRESETS` with + between, or a regular expression matched from the start of a path.

    Raises:
      InputError: no valid expression, or one that matches nothing.
    """
    return frozenset(matching(paths, trainable, PRESETS, setting=setting, what="parameters"))

"""`load`: a model that answers, from a folder, a hub id, an adapter or a run.

Which weights those are is `vlm_jax.checkpoint.model_source`'s to find out; what is done with them, `engine`'s.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vlm_jax.adapters import quantised, quantised_tables
from vlm_jax.checkpoint import description, files, reduction_file
from vlm_jax.checkpoint.generation_settings import repetition_penalty
from vlm_jax.checkpoint.model_source import ModelSource, open_model
from vlm_jax.checkpoint.stop_tokens import stop_tokens
from vlm_jax.errors import InputError, gathered
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.placement import Placement, placed
from vlm_jax.models.parameters import Flat, abstract_model, linears
from vlm_jax.parallel.starting import keep_compiled_programs, leave_absent_tpu_alone
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.token_budget import ALL_TOKENS, RESIZE, TokenBudget, budget_errors, cut_layers


def load(
    path: str | Path,
    dtype: str = "auto",
    *,
    adapter: str | Path | None = None,
    visual_tokens: float | int | tuple[int, int] | None = None,
    token_reduction: str | None = None,
    token_reduction_layer: int | None = None,
    quantise: str | None = None,
    quantise_tables: bool = False,
    tensor: int = 1,
) -> LoadedModel:
    """Loads a Hugging Face folder, a hub id (`org/name@revision`), a PEFT folder, or a run folder (its newest
    checkpoint). Adapters are added into the kernels. Compiled programs are kept for later processes, in the folder that
    JAX is set to, else in ~/.cache/vlm_jax/compiled.

    Args:
      dtype: float32 or bfloat16; auto is float32 on a CPU, bfloat16 on an accelerator.
      adapter: a PEFT folder or a run folder with adapters alone, whose base `path` is.
      visual_tokens: how many visual tokens of an image the decoder sees: a share (0 < share ≤ 1, a float), the most
        that it takes, or (least, most) that it is scaled to. None keeps what the model was trained with, or what the
        folder's image processor says.
      token_reduction: how (`processing.token_budget.METHODS`): resize, which makes the image smaller, unless said
        otherwise, or what the model was trained with.
      token_reduction_layer: of fastv, how many layers of the decoder see all tokens; 2 unless said otherwise.
      quantise: nf4 or int8: linear layers are held in 4 or 8 bits. They are quantised a layer at a time; what they were
        is never in memory as a whole.
      quantise_tables: beside them, token embeddings and the output layer are held in 8 bits, which are a quarter of
        what nf4 leaves of a 3B model, and a third of a 7B.
      tensor: devices of this process among which the weights are divided, for a model that one of them does not hold.

    Raises:
      InputError: not a model of a known architecture, an incomplete one, or unknown settings; every error is listed.
    """
    errors: list[str] = []
    _check_settings(dtype, quantise, quantise_tables)
    leave_absent_tpu_alone()
    keep_compiled_programs()
    placement = placed(tensor)
    kind = jnp.dtype(("float32" if jax.default_backend() == "cpu" else "bfloat16") if dtype == "auto" else dtype)
    source = _open(path, adapter)
    with gathered(errors):
        source.check()
    with gathered(errors):
        budget, bounds = _budget(source, visual_tokens, token_reduction, token_reduction_layer)
        cut_layers(budget.method, budget.layer, source.config.decoder.layers)
        reduction_file.check_learned(budget, source.config, source.name)
        processor = _processor(source, budget, bounds)
        stops = stop_tokens(source.assets, processor)
    with gathered(errors):
        penalty = repetition_penalty(source.assets)
    if errors:
        raise InputError(errors)
    attach: list[Callable[..., Any]] = []
    if quantise is None:
        # Many parts of a store at one time, where that can be; a part of each array on each device goes one by one.
        place = None if tensor == 1 else lambda path, array: {path: placement.put(path, array[...])}
        parameters = source.read_merged(dtype=kind, place=place)
    else:
        parameters, attach = _quantised(source, kind, quantise, quantise_tables, placement)
    length = _context_length(source.assets)
    make = functools.partial(LoadedModel, source.config, parameters, processor, stops, dtype=kind, attach=attach)
    return make(context_length=length, repetition_penalty=penalty, placement=placement)


def _processor(source: ModelSource, budget: TokenBudget, bounds: tuple[int, int] | int | None) -> Processor:
    """As the source prepares images, by its own settings where it has some beside its assets'."""
    own = source.images
    processor = description.read_processor(source.assets, source.config, bounds if own is None else None, budget)
    if own is not None:
        processor.images = own.with_token_range(bounds)
        processor.check_budget()
    return processor


def _open(path: str | Path, adapter: str | Path | None) -> ModelSource:
    if adapter is None:
        return open_model(str(path))
    source = open_model(str(adapter), base=str(path))
    if source.base is None:
        raise InputError(f"{adapter}: is a whole model, no adapter; load it by itself")
    return source


def _check_settings(dtype: str, quantise: str | None, quantise_tables: bool) -> None:
    errors = []
    if dtype not in ("auto", "float32", "bfloat16"):
        errors.append(f"dtype {dtype!r}: known are auto, float32, bfloat16")
    if quantise not in (None, *quantised.KINDS):
        errors.append(f"quantise {quantise!r}: known are {', '.join(quantised.KINDS)}")
    if quantise is None and quantise_tables:
        errors.append(f"quantise_tables goes with quantise, which is None; known are {', '.join(quantised.KINDS)}")
    if errors:
        raise InputError(errors)


def _budget(
    source: ModelSource,
    visual_tokens: float | int | tuple[int, int] | None,
    method: str | None,
    layer: int | None = None,
) -> tuple[TokenBudget, int | tuple[int, int] | None]:
    """What stays of an image, and between how many tokens it is scaled.

    A number of tokens alone is a limit on the size of images: with it they are scaled as ever.
    """
    if isinstance(visual_tokens, tuple):
        if len(visual_tokens) != 2 or not all(type(bound) is int for bound in visual_tokens):
            raise InputError(f"visual_tokens {visual_tokens!r}: wanted two numbers of tokens, (least, most)")
        for name, value in (("token_reduction", method), ("token_reduction_layer", layer)):
            if value is not None:
                raise InputError(
                    f"{name} {value!r} beside visual_tokens {visual_tokens}, between which images are scaled: give a "
                    "share or a number with it"
                )
        return source.budget, visual_tokens
    if visual_tokens is None and method is None and layer is None:
        return source.budget, None
    if visual_tokens is None:
        own = source.budget
        if own.takes_all:
            name = f"token_reduction {method!r}" if method is not None else f"token_reduction_layer {layer}"
            raise InputError(f"{name} needs visual_tokens too: a share that stays, such as 0.25, or a number")
        return _like(own, own.visual_tokens, method, layer), None
    if errors := budget_errors(visual_tokens, method or RESIZE):
        raise InputError(errors)
    if isinstance(visual_tokens, int) and method in (None, RESIZE):
        own = source.budget
        if method is None and (own.chooses or own.cuts):
            return _like(own, visual_tokens, method, layer), None
        if layer is None:
            return ALL_TOKENS, visual_tokens
    if visual_tokens == 1 and isinstance(visual_tokens, float):
        return TokenBudget(1.0, method or RESIZE, layer=layer or 0), None  # whatever it was trained with, known or not
    if method is None:
        return _like(source.budget, visual_tokens, method, layer), None
    try:
        own = source.budget
    except InputError:  # all is said anew, so what this version does not know is of no use
        own = ALL_TOKENS
    return _like(own, visual_tokens, method, layer), None


def _like(own: TokenBudget, visual_tokens: float | int, method: str | None, layer: int | None) -> TokenBudget:
    """What a model was trained with, but for what is said."""
    kept = own.layer if method in (None, own.method) else 0
    return TokenBudget(visual_tokens, method or own.method, own.seed, kept if layer is None else layer)


def _quantised(
    source: ModelSource, dtype: Any, quantise: str, quantise_tables: bool, placement: Placement
) -> tuple[Flat, list[Callable[..., Any]]]:
    """The parameters, quantised as they are read, and what gives a model the layers that take them."""
    kernels = {f"{layer}/kernel" for layer in linears(abstract_model(source.config))}

    def place(path: str, array) -> Flat:
        if path in kernels:
            parts = quantised.quantised(path, array, quantise)
        elif quantise_tables and path in quantised_tables.PATHS:
            parts = quantised_tables.quantised(path, array)
        else:
            parts = {path: array[...]}
        return {path: placement.put(path, part) for path, part in parts.items()}

    attach: list[Callable[..., Any]] = [functools.partial(quantised.attach, kind=quantise)]
    attach += [quantised_tables.attach] if quantise_tables else []
    return source.read_merged(dtype=dtype, place=place), attach


def _context_length(assets: Path) -> int | None:
    """`max_position_embeddings` of config.json, of its decoder where it describes several parts."""
    config_json = files.read_json(assets / "config.json")
    text: dict[str, Any] = config_json
    if isinstance(config_json.get("text_config"), dict):
        text = config_json["text_config"]
    most = text.get("max_position_embeddings")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise InputError(f"{assets / 'config.json'}: max_position_embeddings is {most!r}; wanted a number of tokens")
    return most

"""How many visual tokens a model was trained to see: kept in checkpoints, and in a file beside exported weights.

Other programs do not read it: they show such a model all tokens of an image.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.processing.image_processors import ImageProcessor
from vlm_jax.processing.token_budget import ALL_TOKENS, LEARNED, RESIZE, TokenBudget, budget_errors

FILE = "token_reduction.json"
KEY = "token_reduction"
"""Of a checkpoint's settings."""
_KEYS, _MORE = {"visual_tokens", "method", "seed"}, {"layer"}
"""Which it has, and may have."""


IMAGES = "images"
"""In the file, where `resize` left its limit in the image processor beside it: how that was before."""


def to_json(budget: TokenBudget) -> dict[str, Any]:
    layer = {"layer": budget.layer} if budget.layer else {}
    return {"visual_tokens": budget.visual_tokens, "method": budget.method, "seed": budget.seed, **layer}


def is_kept(budget: TokenBudget) -> bool:
    """Whether anything is to be said of it: tokens are left out, or the model has parameters of a method."""
    return not budget.takes_all or budget.method in LEARNED


def write(folder: Path, budget: TokenBudget, images: ImageProcessor | None = None, *, always: bool = False) -> None:
    """Into the folder of a model; nothing where there is nothing to say (`is_kept`).

    Args:
      images: the image processor that the budget is of, where another one is written beside it, or none.
      always: also where it sees all tokens: the base of these adapters does not.
    """
    if always or is_kept(budget):
        before = {} if images is None else {IMAGES: dataclasses.asdict(images)}
        write_json(folder / FILE, {**to_json(budget), **before})


def notes(budget: TokenBudget, format: str) -> list[str]:
    """What others, or a format, do not know of it: a line each."""
    if budget.takes_all:
        return []
    share = f"{budget.visual_tokens:.0%}" if isinstance(budget.visual_tokens, float) else f"{budget.visual_tokens}"
    trained = f"was trained on {share} of the visual tokens of an image, by {budget.method}"
    if format == "pth":
        return [f"the model {trained}, which a .pth file cannot hold: load it with visual_tokens and token_reduction"]
    if format == "orbax":
        return []
    if budget.method == RESIZE and format != "peft":
        return [
            f"the model {trained}: other programs make images no larger than the largest were and leave smaller ones "
            f"as they are; this one reads {FILE}"
        ]
    return [f"the model {trained}: other programs show it all of them; this one reads {FILE}"]


def check_learned(budget: TokenBudget, config: VLMConfig, name: str) -> None:
    """Raises InputError where a model is to choose tokens as it has not learned to."""
    if budget.chooses and budget.method in LEARNED and config.reducer != budget.method:
        unlearned = budget.method.removesuffix("_learned")
        raise InputError(
            f"{name}: has not learned to choose by {budget.method}: train it with that token_reduction, or take "
            f"{unlearned}"
        )


def naming(settings: Any, learned: str) -> Any:
    """What is said of a model that has the parameters of a method, where that does not name it."""
    known = not learned or (isinstance(settings, Mapping) and settings.get("method") == learned)
    return settings if known else to_json(TokenBudget(1.0, learned))


def read(folder: Path) -> Mapping[str, Any] | None:
    """What a folder says, which `of` judges; None where it says nothing."""
    return read_json(folder / FILE) if (folder / FILE).is_file() else None


def of(settings: Any, name: str) -> TokenBudget:
    """The budget that a model was trained with.

    Raises:
      InputError: what this version does not know.
    """
    if settings is None:
        return ALL_TOKENS
    remedy = (
        "take a version of vlm-jax that does, load it with visual_tokens=1.0, which shows it all tokens, or with "
        f"visual_tokens and token_reduction, or remove {FILE} beside it"
    )
    if isinstance(settings, Mapping):
        settings = {key: value for key, value in settings.items() if key != IMAGES}
    if not isinstance(settings, Mapping) or not _KEYS <= set(settings) <= _KEYS | _MORE:
        raise InputError(f"{name}: its token reduction is {settings!r}, which this version does not know; {remedy}")
    names = ("its visual_tokens", "its token reduction", "the layer of its token reduction")
    if errors := budget_errors(settings["visual_tokens"], settings["method"], settings.get("layer", 0), names=names):
        raise InputError([f"{name}: {error}; {remedy}" for error in errors])
    if not isinstance(settings["seed"], int) or isinstance(settings["seed"], bool) or settings["seed"] < 0:
        raise InputError(f"{name}: its token reduction has the seed {settings['seed']!r}; {remedy}")
    return TokenBudget(**settings)

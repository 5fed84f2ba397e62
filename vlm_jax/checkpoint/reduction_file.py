"""How many visual tokens a model was trained to see: kept in checkpoints, and in a file beside exported weights.

Other programs do not read it: they show such a model all tokens of an image.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget, budget_errors

FILE = "token_reduction.json"
KEY = "token_reduction"
"""Of a checkpoint's settings."""
_KEYS = {"visual_tokens", "method", "seed"}


def to_json(budget: TokenBudget) -> dict[str, Any]:
    return {"visual_tokens": budget.visual_tokens, "method": budget.method, "seed": budget.seed}


def write(folder: Path, budget: TokenBudget) -> None:
    """Into the folder of a model; nothing where it sees all tokens."""
    if not budget.takes_all:
        write_json(folder / FILE, to_json(budget))


def read(folder: Path) -> Mapping[str, Any] | None:
    """What a folder says, which `of` judges; None where it says nothing."""
    return read_json(folder / FILE) if (folder / FILE).is_file() else None


def of(settings: Mapping[str, Any] | None, name: str) -> TokenBudget:
    """The budget that a model was trained with.

    Raises:
      InputError: what this version does not know.
    """
    if settings is None:
        return ALL_TOKENS
    remedy = "take a version of vlm-jax that does, or load it with visual_tokens=1.0, which shows it all tokens"
    if not isinstance(settings, Mapping) or set(settings) != _KEYS:
        raise InputError(f"{name}: its token reduction is {settings!r}, which this version does not know; {remedy}")
    names = ("its visual_tokens", "its token reduction")
    if errors := budget_errors(settings["visual_tokens"], settings["method"], names=names):
        raise InputError([f"{name}: {error}; {remedy}" for error in errors])
    if not isinstance(settings["seed"], int):
        raise InputError(f"{name}: its token reduction has the seed {settings['seed']!r}; {remedy}")
    return TokenBudget(**settings)

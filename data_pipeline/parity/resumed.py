"""What the students of an alignment's folder were trained after: other settings are refused from then on, since half of
the one and half of the other would be no alignment at all.

Before, all may change: pairs and what is kept follow anew from the answers in the store. A training begins with its
first checkpoint, so that settings with which none can begin may be mended. What decides how something is done, not what
comes of it, may always change: rows, devices, addresses of teachers. What is evaluated may until something was.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.corpus.pipeline import deciding
from data_pipeline.parity import level
from vlm_jax import terminal
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError

RUN, EVALUATION = "parity.json", "evaluation"
_HOW = ("prices", "store", "rounds", "ask.rows", "level.arms", "evaluate.teacher", "evaluate.metric")
_HOW_OF_TRAINING = ("log", "samples", "checkpoint", "mesh", "data.threads", "data.workers", "data.cache_mb")
"""Settings that may change; more rounds, and more arms, go on from what is there."""


def check(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises InputError where students were trained, or evaluated, after other settings, each named."""
    earlier = read_json(folder / RUN) if (folder / RUN).is_file() else {}
    if not earlier or not trained(folder):
        return
    now = _written(settings)
    differing = [name for name in dict.fromkeys([*earlier, *now]) if earlier.get(name) != now.get(name)]
    trained_on = [name for name in differing if not _within(name, "evaluate")]
    if trained_on:
        last = f"take another --workdir; with --config.store={folder / 'store'} it asks nothing that is answered"
        raise InputError([*(_line(name, "trained", folder, earlier, now) for name in trained_on), last])
    if differing and (folder / EVALUATION).is_dir():
        last = f"move {folder / EVALUATION} away to evaluate again"
        raise InputError([*(_line(name, "evaluated", folder, earlier, now) for name in differing), last])


def _line(name: str, what: str, folder: Path, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    values = f"{_short(earlier.get(name))}, and now {_short(now.get(name))}"
    return f"config.{name} differs from what was {what} in {folder} ({values})"


def trained(folder: Path) -> bool:
    """Whether a training has got as far as a checkpoint, after settings that `check` compares."""
    if any(folder.glob(f"round-*/*/{level.DONE}")):
        return True
    return any(run_folder.latest_step(path) is not None for path in folder.glob("round-*/*/run"))


def begin(folder: Path) -> None:
    """Marks a folder as an alignment's."""
    if not (folder / RUN).is_file():
        write_json(folder / RUN, {})


def note(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes down what is trained after."""
    write_json(folder / RUN, _written(settings))


def _written(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{dotted name: value} of what decides the outcome, as JSON has it."""
    teachers = {name: deciding(teacher) for name, teacher in settings["teachers"].items()}
    flat = _flat({**settings, "teachers": teachers})
    how = (*_HOW, *(f"training.{name}" for name in _HOW_OF_TRAINING))
    return json.loads(
        json.dumps({name: value for name, value in flat.items() if not any(_within(name, one) for one in how)})
    )


def _within(name: str, group: str) -> bool:
    return name == group or name.startswith(f"{group}.")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _short(value: Any) -> str:
    return terminal.line(json.dumps(value, ensure_ascii=False), 120)

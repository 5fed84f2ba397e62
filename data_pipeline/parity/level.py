"""Trains students on their sets, by the trainer that trains everything else, and writes each as a Hugging Face folder.

`kept` is trained first, for as long as the settings say; the controls take as many steps. A training that was
interrupted goes on from its newest checkpoint, one that is done is not begun again.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

import vlm_jax
from data_pipeline.parity.settings import named_here
from data_pipeline.training_run import run
from vlm_jax import terminal
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError
from vlm_jax.training.log import Console

DONE = "trained.json"


class TrainingStopped(Exception):
    """A person asked a training to stop, and it saved what it had."""


@dataclass(frozen=True)
class Trained:
    """A student after its training.

    Attributes:
      folder: a Hugging Face folder.
      steps: training steps that it took.
    """

    folder: Path
    steps: int


def level(
    files: Mapping[str, Path],
    starts: Mapping[str, str],
    config: ConfigDict,
    folder: Path,
    console: Console | None = None,
) -> dict[str, Trained]:
    """{arm: the student trained on its set}.

    Args:
      files: {arm: records}; `kept` is among them.
      starts: {arm: where its weights begin}, as a training's `model.path`.
      config: of the alignment, checked.
      folder: which gets a run folder and an exported one for each arm.

    Raises:
      InputError: data or settings that cannot be trained on.
      TrainingStopped: Ctrl-C; the same call goes on.
    """
    found: dict[str, Trained] = {}
    for arm in ("kept", *(arm for arm in files if arm != "kept")):
        done = folder / arm / DONE
        if done.is_file():
            found[arm] = Trained(folder / arm / "hf", read_json(done)["steps"])
            continue
        training = ConfigDict(config.training.to_dict())
        training.model.path = starts[arm]
        training.data.path = str(files[arm])
        training.data.template, training.data.suffix = config.ask.template, config.ask.suffix
        if "kept" in found:
            training.train.steps, training.train.epochs = found["kept"].steps, 0
        terminal.say(f"level: {folder.name.replace('-', ' ')}, {arm}")
        try:
            result = run(training, str(folder / arm / "run"), console=console)
        except InputError as error:
            raise InputError(named_here(error)) from None
        if result.stopped:
            raise TrainingStopped
        target = folder / arm / "hf"
        if target.exists():  # of an export that did not come to its end
            shutil.rmtree(target)
        vlm_jax.export(folder / arm / "run", target, "hf", say=terminal.say)
        write_json(done, {"steps": result.done})
        found[arm] = Trained(target, result.done)
    return {arm: found[arm] for arm in files}

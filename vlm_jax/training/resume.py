"""Whether a run may go on with the settings it is given now, and what becomes of its schedule.

What computes the same from a checkpoint on may change (`MAY_CHANGE`); everything else that decides what is learned must
be what it was. The model it began with is known by its digest, wherever it lies and however its path is spelt.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.assembled_folder import PARTS
from vlm_jax.checkpoint.files import read_json
from vlm_jax.checkpoint.model_source import ADAPTER, ModelSource, adapter_settings, open_model
from vlm_jax.errors import InputError
from vlm_jax.processing.processor import Processor
from vlm_jax.training.resume_settings import WHOLE, differing_keys, earlier_settings, flat, resume_settings

MAY_CHANGE = (
    "train.steps",
    "train.epochs",
    "train.first.learning_rate",
    "optimizer.learning_rate",
    "optimizer.warmup_fraction",
    "optimizer.end_lr_fraction",
    "optimizer.lr_multipliers.vision",
    "optimizer.lr_multipliers.connector",
    "optimizer.lr_multipliers.decoder",
    "optimizer.lr_multipliers.adapter",
)
"""Settings of the length and of the schedule, which is worked out anew; optimizer state and place in the data stay."""
MODEL = "model"
"""The digest of the model that a run began with, among the settings that it is compared by."""
_LENGTH = ("train.steps", "train.epochs")
_PLACES = ("assemble.encoder", "assemble.decoder", "assemble.connector_weights")


@dataclasses.dataclass(frozen=True)
class Earlier:
    """A run as its newest checkpoint knows it.

    Attributes:
      step: that checkpoint's.
      resume: {setting: value} that it is compared by; groups within groups are flattened.
      steps: where it was to end; None where an earlier version did not write it down.
      first_stage: where its first stage ends; None where it has none, or as `steps`.
      position: its place in the data.
      digest: of the model it began with; None where an earlier version did not write it down.
      validation_losses, validation_scores: that were taken up to that checkpoint.
    """

    home: PurePath
    step: int
    resume: dict[str, Any]
    steps: int | None
    first_stage: int | None
    position: dict[str, Any]
    digest: str | None
    validation_losses: tuple[float, ...] = ()
    validation_scores: tuple[float, ...] = ()

    @property
    def length(self) -> tuple[int, int]:
        """Its steps and epochs, as settings."""
        steps, epochs = (int(self.resume.get(key, 0)) for key in _LENGTH)
        return steps, 0 if steps else epochs or 1

    def changes(self, lasting: Mapping[str, Any], *, may_change: tuple[str, ...] = MAY_CHANGE) -> list[str]:
        """What differs and may, as `setting old → new`.

        Raises:
          InputError: with every setting that differs and may not.
        """
        now = flat(lasting)
        differing = [key for key in differing_keys(self.resume, now) if key != "model.path"]
        differing = [key for key in differing if key not in _PLACES or not self._same_place(key, now[key])]
        if self.length == (now["train.steps"], 0 if now["train.steps"] else now["train.epochs"] or 1):
            differing = [key for key in differing if key not in _LENGTH]  # said otherwise by an earlier version
        refused = [key for key in differing if key not in may_change]
        if refused:
            raise InputError(
                [
                    f"{self.home}: was started with {key} = {self.resume[key]!r}, this run has {now[key]!r}; "
                    f"give {_again(key, self.resume[key])}, or take another --workdir"
                    for key in refused
                ]
            )
        return [f"{key} {self.resume[key]} → {now[key]}" for key in differing]

    def _same_place(self, key: str, path: str) -> bool:
        """Whether a part of an assembled model is the one that the run began with, spelt otherwise."""
        places = {Path(self.resume[key]).expanduser().resolve()}
        assembly = self.home / "model" / PARTS
        if isinstance(assembly, Path) and assembly.is_file():  # which has whole paths, wherever this starts from
            places.add(Path(read_json(assembly).get(key.rpartition(".")[2]) or self.resume[key]))
        return bool(path) and Path(path).expanduser().resolve() in places

    def check_model(self, name: str) -> None:
        """Raises InputError where a model is there and is not the one that the run began with.

        The run's own folder is taken for any, and so is a model that is gone: what is frozen is looked for elsewhere,
        and a run that trains everything needs no other model than its checkpoint.
        """
        if not name or self.digest is None or not Path(name).expanduser().is_dir():
            return
        if Path(name).expanduser().resolve() == Path(str(self.home)).resolve():
            return
        if (found := open_model(name).digest()) != self.digest:
            raise InputError(
                f"config.model.path={name}: other weights (digest {found}) than {self.home} was started from "
                f"({self.digest}); give that model, or --config.model.path={self.home} to go on with the run's own "
                "weights, or take another --workdir"
            )

    def check_data(self, known_by: Mapping[str, Any], differences: Mapping[str, list[str]]) -> None:
        """Raises InputError where data differ, and names the `differences`."""
        errors = []
        for key in known_by:
            if key not in self.resume or (self.resume[key] == known_by[key] and not differences.get(key)):
                continue
            which = "; ".join(differences.get(key) or ["which records differ was not written down when it began"])
            errors.append(
                f"{self.home}: {key} is not what it was started with: {which}; put it back. To teach its model "
                f"more, begin a run with it: --config.model.path={self.home} and another --workdir"
            )
        if errors:
            raise InputError(errors)

    def check_steps(self, steps: int) -> None:
        """Raises InputError where more is done than is asked for."""
        if self.step > steps:
            raise InputError(
                f"{self.home}: has done {self.step} steps, and {steps} are asked for; ask for more "
                "(--config.train.steps or --config.train.epochs), or take another --workdir"
            )

    def change_of_stages(self, share: float, steps: int) -> int | None:
        """Where the first stage ends in a run of so many steps; None: where it does in a fresh one.

        A first stage that is behind it stays as long as it was; one that would have ended by now ends now.
        """
        if not share or self.steps == steps or (self.steps is None and self.first_stage is None):
            return None
        if self.first_stage and self.step >= self.first_stage:
            return self.first_stage
        return max(first_stage(share, steps), self.step)


def _again(key: str, value: Any) -> str:
    """The flags that set a setting to a value."""
    if key not in WHOLE:
        return f"--config.{key}={value}"
    return " ".join(f"--config.{key}.{name}={one}" for name, one in value.items()) or f"no {key}"


def read(home: PurePath, step: int) -> Earlier:
    """Raises InputError where the folder holds no run."""
    checkpoints = run_folder.Checkpoints(home, read_only=True)
    try:
        settings = checkpoints.settings(step)
        if "resume" not in settings:
            raise InputError(
                f"{home}: holds a converted model, not a run; give it as config.model.path to start from it"
            )
        resume = earlier_settings(settings["resume"])
        steps = settings.get("steps") or resume.get("train.steps") or None
        stage = settings.get("first_stage")
        if stage is None and steps and resume.get("train.first.share"):
            stage = first_stage(resume["train.first.share"], steps)
        losses = tuple(settings.get("validation_losses") or ())
        scores = tuple(settings.get("validation_scores") or ())
        digest = resume.get(MODEL) or settings.get(ADAPTER, {}).get("digest")
        return Earlier(home, step, resume, steps, stage, checkpoints.position(step), digest, losses, scores)
    finally:
        checkpoints.close()


def settings_to_save(
    config: ConfigDict,
    processor: Processor,
    source: ModelSource,
    known_by: Mapping[str, Any],
    home: PurePath,
    earlier: Earlier | None,
    *,
    beside_base: bool,
    lora: Lora | None,
) -> dict[str, Any]:
    """What every checkpoint of a run says of it: what it is compared by, and to which base its adapters belong.

    Args:
      source: the model that it starts from, or its own where it goes on from `earlier`.
      known_by: fingerprints of its data.
      beside_base: whether its checkpoints hold no more than what trains, beside a base that they name.
      lora: the kind of its adapters, if it has any.
    """
    digest = source.digest() if earlier is None else earlier.digest
    compared = {**resume_settings(config), **known_by, **({MODEL: digest} if digest else {})}
    settings = run_folder.settings_json(processor.images, processor.budget, resume=compared)
    if beside_base:
        settings |= adapter_settings(source if earlier is None else source.base, lora, home)
    return settings


def first_stage(share: float, steps: int) -> int:
    """The steps of a first stage: each stage that is asked for has a step, however small its share."""
    return min(max(1, round(share * steps)), steps - 1)

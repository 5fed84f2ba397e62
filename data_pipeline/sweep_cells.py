"""The cells of a sweep as folders: the settings that decide a cell's score, and what is there of it already.

What a sweep is, and which cells it has, is `vlm_jax.evaluation.sweep`'s; `sweep_run` runs them.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline import prompting, sources
from data_pipeline.config_files import Load, Override
from data_pipeline.parts import open_files
from vlm_jax import locations, output_folder
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import sweep
from vlm_jax.training.config import check_config
from vlm_jax.training.resume_settings import differing_keys, earlier_settings, flat, resume_settings

_FILES = ("data", "data.mixture", "benchmark")
"""Of what decides the score of a cell, mappings whose keys are a person's."""


@dataclasses.dataclass
class Folder:
    """A cell and what there is of it."""

    cell: sweep.Cell
    path: Path
    command: list[str]
    settings: dict[str, Any]
    """What decides its score."""

    def __post_init__(self) -> None:
        record = self.path / "cell.json"
        self.state: dict[str, Any] = read_json(record) if record.exists() else {}
        """What decided its score, and the figures of its result, once it is finished."""

    @property
    def finished(self) -> bool:
        return "mean" in self.state

    @property
    def progress(self) -> str:
        return "finished" if self.finished else "begun" if self.path.exists() else "new"

    def keep(self, **figures: Any) -> None:
        self.state = {"settings": self.settings, **figures}
        write_json(self.path / "cell.json", self.state)


def folders_of(config: ConfigDict, output: str | Path, *, program: Sequence[str], load: Load) -> list[Folder]:
    """Every cell with its command, once all of the sweep's settings are known to be good. Makes nothing.

    Args:
      config: of the form of `sweep.sweep_config`.
      output: the folder of the sweep.
      program: what a cell is started with, its flags following.
      load: reads the config file of the training.

    Raises:
      InputError: the folder is another program's; every error of the sweep, of what it sets in its training, and of its
        benchmark; or cells were made with other settings.
    """
    output = Path(output)
    output_folder.check(output, f"--output={output}", owner="a sweep's", marks=("cells",))
    trainings, benchmark = _read(config, load)
    evaluation = {"benchmark": benchmark, "metric": config.metric, "max_new_tokens": config.max_new_tokens}
    folders = []
    for cell, training in trainings.items():
        path = output / "cells" / cell.name
        words = [
            *program,
            f"--config={config.train}",
            f"--workdir={path / 'run'}",
            *(f"--config.{key}={value}" for key, value in _overrides(cell.settings)),
            f"--model={path / 'run'}",
            f"--benchmark={config.benchmark}",
            f"--output={path / 'evaluation'}",
            f"--metric={config.metric}",
            f"--max_new_tokens={config.max_new_tokens}",
            # It is asked as it was taught.
            *(f"--{name}={training.data[name]}" for name in prompting.SETTINGS if training.data[name]),
        ]
        settings = {**_deciding(training), **evaluation}
        folders.append(Folder(cell, path, words, json.loads(json.dumps(settings))))
    _check_finished(folders, output)
    return folders


def _read(config: ConfigDict, load: Load) -> tuple[dict[sweep.Cell, ConfigDict], dict[str, str | None]]:
    """The training of every cell, and the digests of the benchmark's files. Raises InputError with every error."""
    sweep.check_form(config)
    load(config.train, [])
    errors, wrong, trainings = sweep.errors_of(config), [], {}
    for place, changed in sweep.places(config).items():
        try:
            load(config.train, _overrides(changed))
        except InputError as error:
            wrong += [f"{place}: {line.removeprefix('--config.')}" for line in error.lines]
    for cell in sweep.cells_of(config) if not wrong else []:
        trainings[cell] = load(config.train, _overrides(cell.settings))
        with gathered(wrong):
            check_config(trainings[cell])
    errors += wrong
    # As many as there are different data, whatever their share.
    for data in {repr(one.data.to_dict() | {"share": 1.0}): one.data.to_dict() for one in trainings.values()}.values():
        with gathered(errors):
            open_files(data)
    benchmark: dict[str, str | None] = {}
    with gathered(errors):
        benchmark = _digests(config.benchmark) if config.benchmark else {}
    if errors:
        raise InputError(list(dict.fromkeys(errors)))
    return trainings, benchmark


def _overrides(changed: Mapping[str, Any]) -> list[Override]:
    """Settings as the command line has them."""

    def text(value: Any) -> str:
        if isinstance(value, ConfigDict):
            return repr(value.to_dict())
        return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

    return [(key, text(value)) for key, value in changed.items()]


def _digests(benchmark: str) -> dict[str, str | None]:
    """{name: digest} of the files of a benchmark that can be opened; None for what is no single file here."""
    errors: list[str] = []
    by_name = {}
    for name in locations.named_in(benchmark):
        with gathered(errors):
            sources.open_source(name, training=False)
        path = Path(name)
        by_name[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
    if errors:
        raise InputError(errors)
    return by_name


def _deciding(training: ConfigDict) -> dict[str, Any]:
    """The settings of a training that decide what is learned; its data by names and lengths, as they may be large."""
    data = {
        Path(name).name: Path(name).stat().st_size
        for name in locations.named_in(training.data.path)
        if Path(name).is_file()
    }
    return {**resume_settings(training), "data": data, "data.mixture": training.data.mixture.to_dict()}


def _check_finished(folders: Sequence[Folder], output: Path) -> None:
    """Raises InputError where cells are already made with other settings."""
    differing: dict[str, list[str]] = {}
    for folder in folders:
        if not (written := folder.state.get("settings")):
            continue
        before, now = _flat(written, earlier_settings), _flat(folder.settings, flat)
        for key in differing_keys(before, now):
            differing.setdefault(f"{key} = {before[key]!r}, which is now {now[key]!r}", []).append(folder.cell.name)
    if differing:
        differences = "; ".join(f"{names[0]} with {what}" for what, names in differing.items())
        raise InputError(
            f"{output}: {len({name for names in differing.values() for name in names})} cells were made with other "
            f"settings: {differences}. Give those settings again, or take another --output"
        )


def _flat(settings: Mapping[str, Any], of_training: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Settings of a cell by their whole names; the files of its data and of its benchmark stay together."""
    files = {key: value for key, value in settings.items() if key in _FILES}
    return {**of_training({key: value for key, value in settings.items() if key not in files}), **files}

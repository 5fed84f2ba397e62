"""The form of a sweep: one training, run again and again with a few settings changed, and one benchmark for all.

Files of `configs/ablations/` return a `sweep_config`. Its cells are every combination of one label of each axis, with
every seed. Whether their settings are ones that a training has is checked by `data_pipeline.sweep_cells`; what
their scores come to is `sweep_report`'s.
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vlm_jax.errors import InputError
from vlm_jax.evaluation import metrics

SEED = "train.seed"
"""The setting that `seeds` gives."""


def sweep_config(
    *,
    train: str,
    axes: Mapping[str, Mapping[Any, Mapping[str, Any]]],
    set: Mapping[str, Any] = {},
    seeds: Sequence[int] = (0, 1, 2),
    benchmark: str = "",
    metric: str = "normalised",
    max_new_tokens: int = 64,
    x_axis: str = "",
) -> ConfigDict:
    """A sweep as a config that `--config.seeds=…` and `--config.set.data.path=…` override.

    Args:
      train: the config file of the training that is changed, as `scripts/train.py` takes it.
      axes: {name: {label: {setting of the training, with its dots: value}}}; tables and plots show names and labels.
      set: {setting: value} for all cells.
      seeds: values of `train.seed`; with two or more, intervals are over them.
      benchmark: records that every cell is asked, as `scripts/evaluate.py` takes them, like the next two.
      x_axis: the axis that the plot has from left to right; by default the first.
    """
    named = {name: {str(label): dict(changed) for label, changed in labels.items()} for name, labels in axes.items()}
    return _in_order(
        {
            "train": train,
            "set": dict(set),
            "axes": named,
            "seeds": tuple(seeds),
            "benchmark": benchmark,
            "metric": metric,
            "max_new_tokens": max_new_tokens,
            "x_axis": x_axis or next(iter(named), ""),
        }
    )


def _in_order(settings: Mapping[str, Any]) -> ConfigDict:
    """A config whose names keep their order, which is that of tables and plots, and may have dots."""
    config = ConfigDict(allow_dotted_keys=True, sort_keys=False)
    for name, value in settings.items():
        config[name] = _in_order(value) if isinstance(value, Mapping) else value
    return config


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """One run of a sweep.

    Attributes:
      labels: {axis: label}.
      settings: {setting of the training: value}, all that differ from the config file's.
    """

    labels: dict[str, str]
    seed: int
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """As its folder is called."""
        named = {**self.labels, "seed": str(self.seed)}
        return "_".join(f"{_plain(axis)}-{_plain(label)}" for axis, label in named.items())

    @property
    def title(self) -> str:
        return ", ".join([*(f"{axis} {label}" for axis, label in self.labels.items()), f"seed {self.seed}"])


def _plain(text: str) -> str:
    return re.sub(r"[^\w.+]+", "-", text).strip("-")


def combinations(config: ConfigDict) -> list[dict[str, str]]:
    """{axis: label} of every row of the table, the last axis changing first."""
    names = list(config.axes)
    return [dict(zip(names, labels, strict=True)) for labels in itertools.product(*(config.axes[n] for n in names))]


def places(config: ConfigDict) -> dict[str, ConfigDict]:
    """{where it stands: settings} of everything that a sweep changes in its training."""
    by_place = {"config.set": config.set}
    for axis in config.axes:
        by_place |= {f"config.axes.{axis}, {label!r}": config.axes[axis][label] for label in config.axes[axis]}
    return by_place


def cells_of(config: ConfigDict) -> list[Cell]:
    """Every cell of a sweep without errors, all of one seed before the next: what is finished early shows every row."""
    cells = []
    for seed in config.seeds:
        for labels in combinations(config):
            changed = {key: value for axis, label in labels.items() for key, value in config.axes[axis][label].items()}
            cells.append(Cell(labels, seed, {**dict(config.set.items()), **changed, SEED: seed}))
    return cells


def check_form(config: ConfigDict) -> None:
    """Raises InputError where a config is something else than a sweep."""
    expected = list(sweep_config(train="", axes={}))
    if sorted(config) != sorted(expected):
        raise InputError(f"the config is no sweep, which has {', '.join(expected)}: see configs/ablations/")


def errors_of(config: ConfigDict) -> list[str]:
    """Every error of a sweep itself; whether a training has the settings that it gives is not looked at."""
    errors = [f"config.axes.{axis}: has no labels" for axis in config.axes if not len(config.axes[axis])]
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        errors.append(f"config.seeds is {config.seeds!r}; wanted one or more, each once")
    if not config.benchmark:
        errors.append("config.benchmark is ''; wanted the records that every cell is asked")
    if wrong := metrics.error_in(config.metric, bem="", ask=None):
        errors.append(f"config.metric is {config.metric!r}; {wrong}")
    if config.max_new_tokens < 1:
        errors.append(f"config.max_new_tokens is {config.max_new_tokens!r}; wanted at least 1")
    if len(config.axes) and config.x_axis not in config.axes:
        errors.append(f"config.x_axis is {config.x_axis!r}; wanted one of {', '.join(config.axes)}")
    by = {"config.seeds": {SEED}, "config.set": set(config.set)}
    by |= {f"config.axes.{axis}": {key for one in config.axes[axis].values() for key in one} for axis in config.axes}
    for first, second in itertools.combinations(by, 2):
        errors += [f"{key} is given by {first} and by {second}" for key in sorted(by[first] & by[second])]
    doubled = [name for name, count in Counter(cell.name for cell in cells_of(config)).items() if count > 1]
    if doubled and not errors:
        errors.append(f"config.axes: two cells would have the folder {doubled[0]}; name their labels otherwise")
    return errors

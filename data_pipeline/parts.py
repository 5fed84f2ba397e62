"""The data sets that a run is made of, opened from its settings: `data.path`, or each part of `data.mixture`.

A part is some files, how its images are prepared, and its share of what is drawn. Reading files is `sources`'.
"""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

from data_pipeline import prompting, sources
from data_pipeline.mixture import Component
from data_pipeline.records import Record
from data_pipeline.sources.columns import errors_of as columns_errors
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.processor import Processor

DEFAULTS = {"path": "", "weight": 1.0, "seed": 0, "max_visual_tokens": 0}
"""What a part of a mixture may say, beside `SHARED`; 0 visual tokens: the model's."""
SHARED = ("format", "image_root", "answer", "share", "columns", "question", *prompting.SETTINGS)
"""Settings of all data that a part may have otherwise."""


@runtime_checkable
class RecordReader(Protocol):
    """Records by number, each read when it is asked for: `data_pipeline.sources.Source`, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Record: ...


@dataclasses.dataclass(frozen=True)
class Part:
    """One data set of a run.

    Attributes:
      name: as messages call it: its path, or its name in the mixture.
      source: its records.
      processor: with the visual tokens that its images may have.
      component: how much of it is drawn, and in which order.
      settings: that it was opened with.
    """

    name: str
    source: RecordReader
    processor: Processor
    component: Component
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def open_parts(data: Mapping[str, Any], processor: Processor, *, seed: int) -> list[Part]:
    """Opens the parts that the settings name: `data.mixture`, or `data.path` as the only one.

    Args:
      data: the settings of the group `data` (`vlm_jax.training.config`).
      seed: the run's, which chooses the records where `data.share` takes some of them.

    Raises:
      InputError: with the errors of all parts.
    """
    parts = []
    for name, settings, files in open_files(data):
        prompt = prompting.of_settings(settings)
        parts.append(
            Part(
                name if data["mixture"] and len(data["mixture"]) > 1 else settings["path"],
                chain := sources.Chain(files, share=settings["share"], seed=seed, prompt=prompt),
                _with_token_range(processor, settings["max_visual_tokens"]),
                Component(name, len(chain), float(settings["weight"]), settings["seed"]),
                settings,
            )
        )
    return parts


def open_files(data: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], list[sources.Source]]]:
    """(name, settings, files) of each part that the settings name: what of their opening needs no model.

    Raises:
      InputError: with the errors of all parts.
    """
    errors = columns_errors(data["columns"], "config.data.columns") + prompting.errors_of(data, "config.data")
    if errors:
        raise InputError(errors)
    named = dict(data["mixture"]) or {"data": {"path": data["path"]}}
    opened = []
    for name, own in named.items():
        inherited = {key: data[key] for key in SHARED}
        settings = {**DEFAULTS, **inherited, **_checked(name, own, errors)}
        if settings["path"] and (files := _open_files(settings, errors)):
            opened.append((name, settings, files))
    if errors:
        raise InputError(errors)
    return opened


def _open_files(settings: Mapping[str, Any], errors: list[str]) -> list[sources.Source]:
    files = []
    for path in locations.named_in(settings["path"]):
        with gathered(errors):
            files.append(
                sources.open_source(
                    path,
                    format=settings["format"],
                    image_root=settings["image_root"] or None,
                    answer=settings["answer"],
                    seed=settings["seed"],
                    columns=settings["columns"],
                    question=settings["question"],
                )
            )
    return files


def _with_token_range(processor: Processor, most: int) -> Processor:
    """With at most so many visual tokens an image; 0: as many as the model's."""
    if not most:
        return processor
    return processor.with_token_range((max(1, min(most, processor.images.token_range[0])), most))


def _checked(name: str, own: Any, errors: list[str]) -> dict[str, Any]:
    """The settings of a part of a mixture that are in order; what is wrong with the others is added to `errors`."""
    place = f"config.data.mixture.{name}"
    if not isinstance(own, Mapping):
        errors.append(f"{place} is {own!r}; wanted settings such as {{'path': 'mine.jsonl', 'weight': 1.0}}")
        return {}
    known = [*DEFAULTS, *SHARED]
    errors += [f"{place}: no setting {key!r}; " + _nearest(key, known) for key in own if key not in known]
    settings = {key: value for key, value in own.items() if key in known}

    def want(key: str, good: Callable[[Any], bool], expected: str) -> None:
        if key in settings and not good(settings[key]):
            errors.append(f"{place}.{key} is {settings.pop(key)!r}; wanted {expected}")

    want("path", lambda value: isinstance(value, str) and bool(value), "a file or folder")
    if "path" not in own:
        errors.append(f"{place}: no path; wanted a file or folder")
    want("weight", lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number above 0")
    want("seed", _is_count, "0 or more")
    want("max_visual_tokens", _is_count, "0 (the model's) or more")
    want("format", lambda value: value in sources.FORMATS, f"one of {', '.join(sources.FORMATS)}")
    want("image_root", lambda value: isinstance(value, str), "a folder")
    want("answer", lambda value: value in sources.ANSWERS, f"one of {', '.join(sources.ANSWERS)}")
    if "columns" in settings and (wrong := columns_errors(settings["columns"], f"{place}.columns")):
        errors += wrong
        del settings["columns"]
    want("question", lambda value: isinstance(value, str), "a text")
    if wrong := prompting.errors_of(settings, place):
        errors += wrong
        settings = {key: value for key, value in settings.items() if key not in prompting.SETTINGS}
    want("share", lambda value: isinstance(value, int | float) and 0 < value <= 1, "a share above 0, up to 1")
    return settings


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _nearest(key: str, known: Iterable[str]) -> str:
    """The end of an error line about a key that is not known."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"

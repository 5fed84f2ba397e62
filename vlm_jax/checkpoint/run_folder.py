"""Run folders: what a training run leaves on disk, and what `orbax` conversion writes.

    workdir/
      config.json              the run's settings as resolved (written by the training script)
      assets/                  config.json, tokenizer, template, processor files of the model it started from
      checkpoints/<step>/      parameters; while training also optimizer, data iterator, settings; digests.json of all

Paths are those of `locations.folder`: of a disk or a store. Reading and writing a checkpoint is `checkpoints`'.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from vlm_jax import locations
from vlm_jax.checkpoint import digests, reduction_file
from vlm_jax.checkpoint.checkpoints import Checkpoints, missing_items
from vlm_jax.checkpoint.files import copy_assets, folder_of_this_process, written_whole
from vlm_jax.deferred import Deferred
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors import ImageProcessor, stored
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget


def is_run_folder(path: PurePath) -> bool:
    """Whether a path is a run folder, or one of its checkpoints."""
    path, _ = located(path)
    with locations.answering(path):
        return (path / "assets" / "config.json").is_file() and (path / "checkpoints").is_dir()


def is_trained(path: PurePath) -> bool:
    """Whether a path is a run folder, or one of its checkpoints, that training wrote: conversion writes no settings."""
    path, _ = located(path)
    with locations.answering(path):
        return is_run_folder(path) and (path / "config.json").is_file()


def assets_of(path: PurePath) -> Path:
    """The folder of a run's small files, on this machine: a copy where the run is in a store."""
    assets = located(path)[0] / "assets"
    if isinstance(assets, Path):
        return assets
    copy = folder_of_this_process()
    with locations.answering(assets):
        for path in files_below(assets):
            (copy / path.relative_to(assets)).parent.mkdir(exist_ok=True)
            (copy / path.relative_to(assets)).write_bytes(path.read_bytes())
    return copy


def files_below(folder: PurePath) -> Iterator[PurePath]:
    """The files of a folder and of those in it, on a disk or in a store."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def located(path: PurePath) -> tuple[PurePath, int | None]:
    """The run folder of a path, and the step where it names a checkpoint (`run/checkpoints/300`)."""
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        return path.parent.parent, int(path.name)
    return path, None


def latest_step(workdir: PurePath) -> int | None:
    """The newest whole checkpoint of a folder that may not exist yet."""
    with locations.answering(workdir):
        if not (workdir / "checkpoints").is_dir():
            return None
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        return checkpoints.latest()
    finally:
        checkpoints.close()


def check_newer(workdir: PurePath, step: int | None) -> None:
    """Raises InputError where a checkpoint is not whole that is newer than the newest whole one.

    A run that went on from `step` would come to it again, and could not save there.
    """
    broken = {number: missing for number, missing in unfinished(workdir).items() if step is None or number > step}
    if broken:
        then = "begin anew" if step is None else f"go on from step {step}"
        raise InputError(
            [
                f"{workdir / 'checkpoints' / str(number)}: is no whole checkpoint ({', '.join(missing)} missing); "
                f"remove it to {then}"
                for number, missing in sorted(broken.items())
            ]
        )


def check_present(workdir: PurePath, step: int) -> None:
    """Raises InputError where a file of a checkpoint is gone or cut short, which is seen without reading any."""
    if isinstance(workdir, Path):
        digests.check_lengths(workdir / "checkpoints" / str(step))


def unfinished(workdir: PurePath) -> dict[int, list[str]]:
    """{step: what is missing} of the checkpoints of a run folder on a disk that are not whole.

    In a store that is what a run leaves that was killed while it saved, and Orbax writes over it.
    """
    if not isinstance(workdir, Path):
        return {}
    place = workdir / "checkpoints"
    with locations.answering(workdir):
        steps = [path for path in place.iterdir() if path.name.isdecimal()] if place.is_dir() else []
        missing = {int(path.name): missing_items(path) for path in steps}
    return {step: parts for step, parts in missing.items() if parts}


def write_assets(workdir: Path, source: Path) -> None:
    """Copies the small files of a model folder into `workdir/assets`, whole or not at all.

    What a start that never reached a checkpoint left there is replaced: it may be another model's.
    """
    target = workdir / "assets"
    if target.is_dir():
        shutil.rmtree(target)
    with written_whole(target) as folder:
        copy_assets(source, folder)


def settings_json(images: ImageProcessor, budget: TokenBudget = ALL_TOKENS, **more: Any) -> dict[str, Any]:
    """What travels with every checkpoint."""
    reduction = {reduction_file.KEY: reduction_file.to_json(budget)} if reduction_file.is_kept(budget) else {}
    return {"images": stored.to_json(images), **reduction, **more}


def image_processor(settings: dict[str, Any]) -> ImageProcessor:
    """What `settings_json` stored. Raises as `stored.read`."""
    return stored.read(settings["images"])


@contextlib.contextmanager
def newest(path: PurePath) -> Iterator[tuple[Checkpoints, int]]:
    """The checkpoints of a run folder, to be read, and the newest of them, or the one that the path names.

    Raises:
      InputError: the folder holds no finished checkpoint, or not that one.
    """
    workdir, requested = located(path)
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        step = checkpoints.latest() if requested is None else requested
        newer = [number for number in unfinished(workdir) if requested is None and step is not None and number > step]
        if newer:
            listed = ", ".join(map(str, sorted(newer)))
            logging.getLogger("vlm_jax").warning("%s: checkpoint %s is not whole; %d is read", path, listed, step)
        if step is None:
            raise InputError(f"{path}: a run folder without a finished checkpoint; train on, or remove it")
        if requested is not None and not checkpoints.holds(step):
            raise InputError(f"{path}: no finished checkpoint of the run")
        yield checkpoints, step
    finally:
        checkpoints.close()


def write_run_folder(
    target: Path,
    assets: Path,
    parameters: dict[str, Deferred],
    images: ImageProcessor,
    budget: TokenBudget = ALL_TOKENS,
) -> None:
    """A run folder with one checkpoint (step 0) of parameters alone: the `orbax` format of conversion."""
    with written_whole(target) as folder:
        write_assets(folder, assets)
        checkpoints = Checkpoints(folder, deferred=True)
        try:
            checkpoints.save(0, parameters, settings_json(images, budget))
            checkpoints.close()  # waits for what is written meanwhile, and tells how it went
        except InputError:
            raise
        except Exception as error:  # of any of several types, as `_explained_errors` has it
            with contextlib.suppress(Exception):
                checkpoints.close()  # what it writes in the background ends before the folder is removed
            text = " ".join(str(error).split())[:160]
            raise InputError(f"{target}: cannot be written ({type(error).__name__}: {text})") from error

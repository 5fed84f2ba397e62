"""The model that a run starts from or goes on from: opened, or assembled first.

`model` is the config's group of that name, `assemble` the group that describes a model put together from parts.
"""

import contextlib
import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from vlm_jax.checkpoint import assembly, description, run_folder
from vlm_jax.checkpoint.assembled_folder import PARTS
from vlm_jax.checkpoint.files import alone, read_json, write_json
from vlm_jax.checkpoint.model_source import ModelSource, open_model
from vlm_jax.checkpoint.source import resolve
from vlm_jax.checkpoint.workdir import MODEL
from vlm_jax.errors import InputError
from vlm_jax.models.config import VLMConfig
from vlm_jax.parallel import hosts
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.token_budget import TokenBudget


def _assembly(assemble: Mapping[str, Any], **more: Any) -> assembly.Assembly | None:
    """What the group `assemble` describes; None where the model is another's folder."""
    return assembly.Assembly(**assemble, **more) if assemble["encoder"] else None


def open_starting_model(
    path: str, assemble: Mapping[str, Any], workdir: PurePath, done: int | None, *, seed: int
) -> ModelSource:
    """A run that goes on needs its own folder, and the base that its adapters name; nothing else.

    Args:
      path: the setting `model.path`.
      assemble: the settings of an assembled model; it is written below the run's folder.
      done: the step of the run's newest checkpoint, if it has one.
      seed: of what starts fresh.

    Raises:
      InputError: no such model, or one with adapters.
    """
    if done is not None:
        try:
            return open_model(str(workdir))
        except InputError as error:
            try:
                return open_model(str(workdir), base=path)
            except InputError:
                raise error from None
    requested = _assembly(assemble, seed=seed)
    source = open_model(path if requested is None else _assembled(requested, workdir))
    if source.lora is not None:
        raise InputError(
            f"config.model.path is {path}, a model with adapters; merge them first: "
            f"scripts/convert_checkpoint.py --source={path} --target=FOLDER --format=hf"
        )
    return source


def shapes(path: str, assemble: Mapping[str, Any]) -> VLMConfig:
    """Of the model that a run would start from; nothing is written, and no weights are looked at."""
    requested = _assembly(assemble)
    return open_model(path).config if requested is None else assembly.plan(requested).config


@contextlib.contextmanager
def described(
    path: str, assemble: Mapping[str, Any], visual_tokens: tuple[int, int], budget: TokenBudget
) -> Iterator[tuple[VLMConfig, Processor]]:
    """Shapes and processor of the model that a run would start from, which needs no weights for them."""
    with tempfile.TemporaryDirectory() as folder:
        if requested := _assembly(assemble):
            source = Path(folder) / MODEL
            assembly.write(source, requested)
        else:
            source = resolve(path)
        if run_folder.is_run_folder(source):
            source = run_folder.assets_of(source)
        config = description.read_config(source)
        yield config, description.read_processor(source, config, visual_tokens, budget)


def _assembled(requested: assembly.Assembly, workdir: PurePath) -> str:
    """The folder of an assembled model, written below the run's where it is not there yet.

    Adapters refer to it as their base, so it stays.
    """
    if not isinstance(workdir, Path):
        raise InputError(
            f"--workdir={workdir}: a model is assembled on a disk; write it with scripts/assemble.py on every host, "
            "and give its folder as config.model.path"
        )
    folder = workdir / MODEL
    assembly.plan(requested)  # on every host: none should wait for one that found an error
    if hosts.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        record = dataclasses.asdict(requested)
        if (weights := Path(requested.connector_weights).expanduser()).is_file():
            record["connector_digest"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        with alone(workdir, "training"):
            if folder.exists() and read_json(folder / PARTS).get("assembly") != record:
                shutil.rmtree(folder)  # of a start that reached no checkpoint
            if not folder.exists():
                assembly.write(folder, requested)
                write_json(folder / PARTS, read_json(folder / PARTS) | {"assembly": record})
    hosts.wait_for_all("the model is assembled")
    return str(folder)

"""What the program of a job is given: its settings as its machine will find them, and the paths in them.

The image holds the repository's code and configs; everything else is read from gs:// or the hub. Programs that write
through the file system are given /gcs/BUCKET/…, where Vertex AI mounts gs://BUCKET/… in every job.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.launching.machines import Machine
from vlm_jax import locations
from vlm_jax.errors import InputError

WRITTEN = ("output", "target")
"""Flags of programs that name what they write."""
IMAGE_FOLDERS = ("configs", "scripts", "data_pipeline", "vlm_jax")
"""What the images hold of the repository, as launch/ and .dockerignore have it."""
TRAINING = ("train", "train_and_evaluate")
JOINING = (*TRAINING, "evaluate")
"""Programs that join their like on other hosts (`parallel.hosts`); each of several others would write the same."""
CHECKED = (*TRAINING, "inspect_data", "compile_check")
"""Programs whose config is that of a training."""
_DATA = ("config.data.path", "config.data.mixture", "config.validation.path")
MODELS = ("model.path", "assemble.encoder", "assemble.decoder")
_READ = (
    *("base", "baseline", "bem", "connector_weights", "decoder", "encoder", "image", "index", "model", "passages"),
    "source",
)
"""Settings, and flags of programs, that name what is opened as a file or as the folder of a model; data is read from
gs:// itself."""
_PATHS = (
    *(f"config.{key}" for key in (*MODELS, "data.image_root")),
    *(f"--{flag}" for flag in (*_READ, "benchmark", "data", "general", "image_root", "records", "text")),
)
"""Where a path of this machine is one also where nothing lies there: a word that begins with a slash may be meant."""
_LOCAL_STORE = ("generate_corpus", "align_parity")
_ELSEWHERE = ("gs://", "/gcs/", "hf://")


def as_written(script: str, flag: str, value: str) -> str:
    """The value that a program is given: a training writes to gs:// itself, others through the mounted folder."""
    own = flag in ("workdir", "model") and script in TRAINING
    return mounted(value) if flag in (*WRITTEN, *_READ, "workdir") and not own else value


def mounted(value: str) -> str:
    """Paths (commas between) as the file system of a job has them; what is not at gs:// stays."""
    return re.sub(r"(^|,\s*)gs://", r"\1/gcs/", value)


def overrides(settings: Mapping[str, Any] | ConfigDict, given: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Overrides of the config as its program is given them: models at gs://, the config file's own too, are mounted."""
    pairs = [(key, mounted(text) if key in MODELS else text) for key, text in given]
    for key in MODELS:
        group, _, name = key.partition(".")
        value = settings.get(group, {}).get(name, "") if group in settings else ""
        if isinstance(value, str) and mounted(value) != value and key not in dict(given):
            pairs.append((key, mounted(value)))
    return pairs


def without_disk(script: str, flags: Sequence[tuple[str, str]]) -> list[str]:
    """Of a program that keeps what it paid teachers for in SQLite (`teachers.store`), which wants a disk that stays."""
    asking = [f"--{flag}" for flag, value in flags if flag == "judge" and value or value.startswith("teacher:")]
    return [
        f"{what}: keeps its teachers' answers in SQLite, which a mounted bucket is no place for; run it on a machine "
        "with a disk (docs/launching.md)"
        for what in ([f"--script={script}"] if script in _LOCAL_STORE else asking)
    ]


def texts(settings: Mapping[str, Any] | ConfigDict, prefix: str = "config") -> Iterator[tuple[str, str]]:
    """(dotted name, text) of every setting that is a text, of lists of texts, and of keys that a person chose."""
    for key, value in settings.items():
        name = f"{prefix}.{key}"
        if prefix in _DATA:
            yield prefix, str(key)
        if isinstance(value, Mapping | ConfigDict):
            yield from texts(value, name)
        elif isinstance(value, list | tuple):
            yield from ((name, item) for item in value if isinstance(item, str))
        elif isinstance(value, str):
            yield name, value


def on_this_machine(found: Iterable[tuple[str, str]], root: Path) -> list[str]:
    """A line for each path that the job's machine will not have: files of this one, and data that is nowhere."""
    from data_pipeline.sources import hub

    lines = []
    for where, text in found:
        for path in locations.named_in(text) if where in _DATA or where in _PATHS else [text]:
            if not path or path.startswith(_ELSEWHERE) or _in_image(path, root):
                continue
            looks = "/" in path or Path(path).suffix
            if looks and os.path.exists(path):
                lines.append(f"{where}={path} is on this machine; copy it to gs:// and name that")
            elif where in _DATA and not hub.is_address(path):
                lines.append(f"{where}={path} is not in the image; name data at gs:// or hf://datasets/")
            elif where in _PATHS and path.startswith(("/", "~", "./", "../")):
                lines.append(f"{where}={path} is a path of this machine; copy what you mean to gs:// and name that")
    return list(dict.fromkeys(lines))


def _in_image(path: str, root: Path) -> bool:
    full = os.path.realpath(root / path)
    return os.path.exists(full) and any(Path(full).is_relative_to(root / folder) for folder in IMAGE_FOLDERS)


def config_in_image(path: Path, root: Path) -> str:
    """A config file as the image names it, from the repository's root.

    Raises:
      InputError: it lies elsewhere.
    """
    full = path.resolve()
    if not full.is_relative_to(root / "configs"):
        raise InputError(f"--config={path}: is not in configs/, which is what the image holds; move it there")
    return full.relative_to(root).as_posix()


def check(script: str, config: ConfigDict, machine: Machine, nodes: int) -> list[str]:
    """Checks settings as the program will, and that its mesh fits the machine.

    Returns:
      What keeps the batch from dividing over the machine's devices, if anything.

    Raises:
      InputError: settings are wrong, or the mesh wants another number of devices.
    """
    if script in CHECKED:
        from vlm_jax.training.config import check_config

        check_config(config)
        return _mesh(config, machine, nodes) if script in TRAINING else []
    if script == "generate_corpus":
        from data_pipeline.corpus import settings as corpus

        if config.get("corpus") == corpus.KIND:
            corpus.check(corpus.without_nobody(config.to_dict()))
    if script == "align_parity":
        from data_pipeline.parity import settings as parity

        parity.check(config)
    return []


def _mesh(config: ConfigDict, machine: Machine, nodes: int) -> Sequence[str]:
    from vlm_jax.parallel import mesh

    devices = machine.chips * nodes
    try:
        sizes = mesh.MeshShape(**config.mesh).over(devices)
    except InputError as error:
        raise InputError([f"config.{line} (--machine={machine.name})" for line in error.lines]) from error
    try:
        mesh.check_division(sizes, config.batch.rows, config.batch.gradient_accumulation, machine.hosts * nodes)
    except InputError as error:
        return [f"config.{line}" for line in error.lines]
    return []

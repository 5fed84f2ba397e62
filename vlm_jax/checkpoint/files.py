"""The small files of a model folder, and folders and files that appear whole or not at all."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of
from vlm_jax.locations import check_ends

ASSETS = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "LICENSE*",
)
"""What a model folder holds besides weights, carried along as it is."""


def copy_assets(source: Path, target: Path) -> None:
    for pattern in ASSETS:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                copy = target / path.relative_to(source)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)


_OF_THIS_PROCESS: list[tempfile.TemporaryDirectory] = []


def folder_of_this_process() -> Path:
    """A new empty folder on this machine, which is removed when the process ends: for copies that are read from."""
    _OF_THIS_PROCESS.append(tempfile.TemporaryDirectory(prefix="vlm_jax-assets-"))
    return Path(_OF_THIS_PROCESS[-1].name)


def check_target(target: Path) -> None:
    """Raises InputError when something is in the way of writing a folder."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: exists and is not empty; remove it or name another target")


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A folder beside `target` to write into; it gets its name at the end, and is removed if anything fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}.unfinished-", dir=target.parent))
    try:
        unfinished.chmod(0o755)
        yield unfinished
        with _of_one_writer(target):
            if target.exists():
                target.rmdir()
            unfinished.rename(target)
    except BaseException:
        for _ in range(20):  # a thread that still writes may make files while others are removed
            shutil.rmtree(unfinished, ignore_errors=True)
            if not unfinished.exists():
                break
            time.sleep(0.1)
        raise


@contextlib.contextmanager
def file_written_whole(target: Path) -> Iterator[Path]:
    """As `written_whole`, a file that is not there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(prefix=f".{target.name}.unfinished-", dir=target.parent)
    os.close(number)
    unfinished = Path(name)
    try:
        unfinished.chmod(0o644)
        yield unfinished
        with _of_one_writer(target):
            _name(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def _name(unfinished: Path, target: Path) -> None:
    """Renames a file; what has the name already keeps it."""
    try:
        os.link(unfinished, target)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK) or target.exists():
            raise
        unfinished.rename(target)  # a disk without hard links
    else:
        unfinished.unlink()


@contextlib.contextmanager
def _of_one_writer(target: Path) -> Iterator[None]:
    """While a target gets its name: of two that write it, the first has it, and the other an error.

    Raises:
      InputError: it is there already, with something in it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise InputError(f"{target}: another process wrote it meanwhile; that is left as it is") from None


def check_room(target: Path, size: int) -> None:
    """Raises InputError when the disk has less than `size` bytes left for a folder or file to come."""
    above = next(folder for folder in target.absolute().parents if folder.is_dir())
    if size > (free := shutil.disk_usage(above).free):
        raise InputError(
            f"{target}: takes {size / 1e6:,.0f} MB and the disk has {free / 1e6:,.0f} MB left; free some room, or name "
            "a target elsewhere"
        )


@contextlib.contextmanager
def alone(folder: Path, doing: str, *, together: bool = False) -> Iterator[int]:
    """Holds a folder that must be written by one process at a time; yields the lock's file descriptor.

    Args:
      together: others that ask for this may hold it beside, and nobody else.

    Raises:
      InputError: another process holds it, and what it is `doing`.
    """
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if together else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another process is {doing} in this folder; wait, or take another") from None
        yield lock.fileno()


def check_free(folder: Path, doing: str) -> None:
    """Raises InputError where another process holds a folder now (`alone`). Makes nothing."""
    if (folder / ".lock").is_file():
        with alone(folder, doing):
            pass


def write_text(path: Path, text: str) -> None:
    """Writes a small file, whole or not at all."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(path)


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def write_json(path: Path, value: Any) -> None:
    """As `write_text`, a value as indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Raises InputError when the file is missing or no JSON object."""
    try:
        check_ends(path)
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=object_of)
    except RecursionError:
        raise InputError(f"{path}: unreadable JSON (it is nested too deeply)") from None
    except FileNotFoundError:
        raise InputError(f"{path}: missing; a model folder holds config.json, weights and tokenizer files") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: unreadable JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object")
    return value

"""Paths on this machine and addresses in a store (`gs://bucket/…`), read by the same few functions.

Stores are reached through fsspec, which is loaded when an address of one is first met; `memory://` is fsspec's own,
for tests. Only stores that a person names by purpose are known: a web address is never fetched, and a name found in
data cannot lead out of the bucket it is joined to. What is in a file is left to others.
"""

import io
import os
import posixpath
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError

STORES = {"gs": "gcsfs", "memory": "fsspec"}
"""Scheme to the package that fsspec needs for it."""


def is_remote(path: str | Path) -> bool:
    """Whether a path is the address of a known store. A `Path` never is: it cannot hold two slashes."""
    return isinstance(path, str) and "://" in path and path.partition("://")[0] in STORES


def absolute(path: str | Path) -> str:
    """The path from the root; an address is one already."""
    return path.rstrip("/") if isinstance(path, str) and is_remote(path) else os.path.abspath(path)


def join(folder: str, name: str) -> str:
    """The normalised path of a name in a folder (as `absolute` gives it). An absolute name stands for itself.

    In a store, `..` ends at the bucket: what data names is not taken from another one.
    """
    if not is_remote(folder) or name.startswith("/"):
        return os.path.normpath(os.path.join(folder, name))
    scheme, _, rest = folder.partition("://")
    bucket, _, inside = rest.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(posixpath.join('/', inside, name))}".rstrip("/")


def parent(path: str) -> str:
    """The folder that a path lies in."""
    return path.rstrip("/").rpartition("/")[0] if is_remote(path) else os.path.dirname(path) or "."


def below(path: str, folder: str) -> str | None:
    """The path of a file relative to a folder (as `absolute` gives it), or None where it lies elsewhere."""
    start = folder.rstrip("/" if is_remote(folder) else os.sep) + ("/" if is_remote(folder) else os.sep)
    return path.removeprefix(start) if path.startswith(start) else None


def open_binary(path: str | Path) -> io.IOBase:
    """Opens a file to read its bytes.

    Raises:
      FileNotFoundError, OSError: as for a file on this machine; a store's client may raise others.
      InputError: the package for the store is not installed.
    """
    if not is_remote(path):
        return open(path, "rb")
    system, inside = _store(str(path))
    return system.open(inside, "rb")


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file. Errors are those of `open_binary`."""
    with open_binary(path) as file:
        return file.read()


def read_range(path: str, start: int, end: int) -> bytes:
    """The bytes [start, end) of a file in a store, or fewer where it is shorter."""
    system, inside = _store(path)
    return system.cat_file(inside, start=start, end=end)


def size(path: str | Path) -> int:
    """The length of a file in bytes. Errors are those of `open_binary`."""
    if not is_remote(path):
        return os.path.getsize(path)
    system, inside = _store(str(path))
    return int(system.size(inside))


def is_file(path: str) -> bool:
    if not is_remote(path):
        return os.path.isfile(path)
    system, inside = _store(path)
    return system.isfile(inside)


def is_folder(path: str) -> bool:
    """Whether there is such a folder; in a store, whether any name begins with it."""
    if not is_remote(path):
        return os.path.isdir(path)
    system, inside = _store(path)
    return system.isdir(inside)


def names_in(folder: str) -> list[str]:
    """The names in a folder, in order."""
    if not is_remote(folder):
        return sorted(os.listdir(folder))
    system, inside = _store(folder)
    names = {entry.rstrip("/").rpartition("/")[2] for entry in system.ls(inside, detail=False)}
    return sorted(names - {"", inside.rstrip("/").rpartition("/")[2]})  # the folder itself may be an object of no bytes


def _store(address: str) -> tuple[Any, str]:
    """The fsspec file system and the path in it. The scheme alone picks it: fsspec's chained addresses are not read."""
    import fsspec

    scheme, _, inside = address.partition("://")
    try:
        return fsspec.filesystem(scheme), inside
    except ImportError:
        raise InputError(
            f"{address}: reading {scheme}:// needs {STORES[scheme]}; pip install 'vlm-jax[{scheme}]'"
        ) from None

"""Paths on this machine and addresses in a store (`gs://bucket/…`), reached by the same few functions.

Stores are reached through fsspec, which is loaded when an address of one is first met; `memory://` is fsspec's own,
for tests. Only stores that a person names by purpose are known: a web address is never fetched, and a name found in
data cannot lead out of the bucket it is joined to. What is in a file is left to others.

What a run writes goes through `folder`: pathlib's methods, for a folder of either kind.
"""

import contextlib
import io
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from vlm_jax.errors import InputError

_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
STORES = {"gs": "gcsfs", "memory": "fsspec"}
"""Scheme to the package that fsspec needs for it."""


def is_remote(path: str | Path) -> bool:
    """Whether a path is the address of a known store. A `Path` never is: it cannot hold two slashes."""
    return isinstance(path, str) and "://" in path and path.partition("://")[0] in STORES


def absolute(path: str | Path) -> str:
    """The path from the root; an address is one already."""
    return path.rstrip("/") if isinstance(path, str) and is_remote(path) else os.path.abspath(path)


def user_cache(name: str) -> Path | None:
    """A file or folder of this package's in the user's cache (XDG_CACHE_HOME, else ~/.cache); None without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vlm_jax" / name
    except RuntimeError:
        return None


def named_in(text: str) -> list[str]:
    """The paths of a text that has commas between them. A file's own name may hold commas: then it is the only one."""
    if not is_remote(text) and os.path.exists(text):
        return [text]
    return [name.strip() for name in text.split(",")]


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
        check_ends(path)
        return open(path, "rb")
    system, inside = _store(str(path))
    return system.open(inside, "rb")


def check_ends(path: str | Path) -> None:
    """Raises InputError for what is neither a file nor a folder: reading a pipe waits for ever, a device never ends.

    Raises:
      FileNotFoundError, OSError: as for a file that is opened.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{path}: is {_KINDS.get(kind, 'a device')}, where a file is expected; copy what it gives")


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


def stamp(path: str | Path) -> tuple[str, float]:
    """What a file is known by while nobody writes to it (length and times), and when that was, in seconds since 1970.

    Empty where a store tells no time or version. Errors are those of `open_binary`.
    """
    if not is_remote(path):
        status = os.stat(path)
        # The time of the last change of the inode as well: copying may keep the other, and the length be the same.
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}", status.st_mtime
    system, inside = _store(str(path))
    info = system.info(inside)
    version = next((info[key] for key in ("generation", "etag", "mtime", "updated", "created") if info.get(key)), None)
    return ("", 0.0) if version is None else (f"{info.get('size')} {version}", 0.0)


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


def sizes_below(folder: str | PurePath) -> dict[str, int]:
    """{name relative to the folder: bytes} of all files in it and in its folders, in order."""
    if not is_remote(os.fspath(folder)):
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    else:
        system, inside = _store(os.fspath(folder))
        found = system.find(inside, detail=True)
        sizes = {name.removeprefix(f"{inside}/"): int(entry["size"]) for name, entry in found.items()}
    return {name: sizes[name] for name in sorted(sizes, key=lambda name: name.split("/"))}


def folder(path: str | Path) -> PurePath:
    """A folder to read and write with pathlib's methods: a `Path`, or for a gs:// address Orbax's counterpart of it.

    Raises:
      InputError: an address of another store, or the package for it is not installed.
    """
    if "://" not in str(path):
        return Path(path)
    scheme, _, inside = str(path).partition("://")
    if scheme != "gs":
        raise InputError(f"{path}: a run is kept in a folder of this machine, or at a gs:// address")
    if not inside.strip("/"):
        raise InputError(f"{path}: names no bucket; an address is gs://BUCKET/FOLDER")
    from etils import epath
    from fsspec.config import conf

    # Other hosts, and TensorStore within this one, write what a remembered listing would not show.
    conf.setdefault(scheme, {})["use_listings_cache"] = False
    _store(str(path))
    return epath.Path(str(path).rstrip("/"))


def check_bucket(path: PurePath) -> None:
    """Raises InputError when a folder is in a store that does not answer, or does not let this account in."""
    if isinstance(path, Path):
        return
    system, inside = _store(os.fspath(path))
    bucket = inside.partition("/")[0]
    with answering(path):
        try:
            system.call("GET", "b/{}", bucket)  # what Orbax asks as well, to know the kind of the bucket
        except FileNotFoundError:
            raise InputError(
                f"{path}: there is no bucket {bucket}; correct the name, or `gcloud storage buckets create gs://{bucket}`"
            ) from None


@contextlib.contextmanager
def answering(path: PurePath) -> Iterator[None]:
    """Puts what a store's client raises into a line with the address and what to do. A disk's errors are left alone."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of several types: the client's, of HTTP, of credentials
        if isinstance(path, Path):
            raise
        advice = refusal(path, error) or f"the store does not answer ({_line(error)}); try again"
        raise InputError(f"{path}: {advice}") from error


def refusal(path: PurePath, error: Exception) -> str | None:
    """What to do about an error that means that a store does not let this account in; None for any other error."""
    text = str(error)
    if any(mark in text for mark in ("Forbidden", "PERMISSION_DENIED", "403")):
        bucket = os.fspath(path).partition("://")[2].partition("/")[0]
        return (
            f"no permission ({_line(error)}); on gs://{bucket} the account needs the roles Storage Object User and "
            "Storage Legacy Bucket Reader"
        )
    if any(mark in text for mark in ("UNAUTHENTICATED", "Anonymous caller", "Invalid Credentials", "401")):
        return f"not logged in ({_line(error)}); `gcloud auth application-default login`"
    return None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _store(address: str) -> tuple[Any, str]:
    """The fsspec file system and the path in it. The scheme alone picks it: fsspec's chained addresses are not read."""
    import fsspec

    scheme, _, inside = address.partition("://")
    try:
        return fsspec.filesystem(scheme), inside
    except ImportError:
        raise InputError(f"{address}: {scheme}:// needs {STORES[scheme]}; pip install 'vlm-jax[{scheme}]'") from None

"""Digests of a checkpoint's files, by which damage is noticed before anything is read.

What TensorStore writes has no checksum: a bit that a disk or a copy turned over is another weight, without a word. So
the length and the CRC-32 of every file are written beside them when a checkpoint is whole, and compared when it is
read. They tell of accidents, not of what somebody changed on purpose. A store has checksums of its own, and is left to
them. ISA-L's CRC-32 has the values of zlib's, several times as fast (`benchmarks/digest_cost.py`).
"""

import functools
import json
import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vlm_jax.errors import InputError

try:
    from isal.isal_zlib import crc32
except ImportError:  # where it has no wheel: the same values, later
    from zlib import crc32

FILE = "digests.json"
_BLOCK = 4 << 20
_NAMED = 3


def write(checkpoint: Path) -> None:
    """Writes the digests of all files of a checkpoint's items into it. Orbax still adds to those beside the items."""
    found = _of([path for path in sorted(checkpoint.glob("*/**/*")) if path.is_file()])
    digests = {path.relative_to(checkpoint).as_posix(): list(digest) for path, digest in found.items()}
    unfinished = checkpoint / f".{FILE}.{os.getpid()}"
    unfinished.write_text(json.dumps(digests, indent=0))
    unfinished.rename(checkpoint / FILE)


def check(checkpoint: Path, items: Collection[str]) -> bool:
    """Compares the files of some items of a checkpoint with what was written down.

    Returns:
      Whether there are digests: earlier versions wrote none.

    Raises:
      InputError: a file is missing, or has other content than was written.
    """
    expected = _expected(checkpoint)
    if expected is None:
        return False
    expected = {path: digest for path, digest in expected.items() if path.relative_to(checkpoint).parts[0] in items}
    missing = [path for path in expected if not path.is_file()]
    found = _of([path for path in expected if path not in missing])
    _check_whole(checkpoint, missing, [path for path, digest in found.items() if digest != expected[path]])
    return True


def check_lengths(checkpoint: Path) -> None:
    """As `check` of all items, by the lengths of the files alone: nothing is read of them."""
    expected = _expected(checkpoint) or {}
    missing = [path for path in expected if not path.is_file()]
    found = {path: path.stat().st_size for path in expected if path not in missing}
    _check_whole(checkpoint, missing, [path for path, size in found.items() if size != expected[path][0]])


def _expected(checkpoint: Path) -> dict[Path, tuple[int, int]] | None:
    try:
        digests = json.loads((checkpoint / FILE).read_text())
        return {
            checkpoint / name: (int(size), int(crc))
            for name, (size, crc) in digests.items()
            if not {"", ".."} & set(name.split("/"))
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{checkpoint / FILE}: cannot be read ({error}); {_ADVICE}") from None


def _check_whole(checkpoint: Path, missing: Collection[Path], changed: Collection[Path]) -> None:
    errors = [f"{_list(missing, checkpoint)} missing"] if missing else []
    errors += [f"{_list(changed, checkpoint)} not what was written"] if changed else []
    if errors:
        raise InputError(f"{checkpoint}: damaged: {'; '.join(errors)}; {_ADVICE}")


_ADVICE = "copy it again, or remove that folder to go on from the checkpoint before"


def _of(paths: Collection[Path]) -> dict[Path, tuple[int, int]]:
    """{file: (bytes, CRC-32)}, by several threads: reading and summing let go of the interpreter."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(_of_file, paths), strict=True))


def of_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """{name: CRC-32 of the bytes} of arrays in memory or mapped from files."""

    def of(array: np.ndarray) -> int:
        return crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        return dict(zip(arrays, pool.map(of, arrays.values()), strict=True))


def _of_file(path: Path) -> tuple[int, int]:
    found = path.stat()
    return _digest(path, (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@functools.lru_cache(maxsize=1 << 16)
def _digest(path: Path, _state: tuple[int, ...]) -> tuple[int, int]:
    """Each file once a process, while it is not written again: a model that is loaded opens its run several times."""
    size = crc = 0
    block = memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            size += count
            crc = crc32(block[:count], crc)
    return size, crc


def _list(paths: Collection[Path], checkpoint: Path) -> str:
    names = [path.relative_to(checkpoint).as_posix() for path in paths]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'are' if len(names) > 1 else 'is'}"

"""What is known of image files, kept from one start to the next: sizes, and whether all pixels decode.

One SQLite file in the user's cache folder, which any number of processes may use at the same time. A file is known by
its absolute path and by its stamp (`locations.stamp`: length and times); bytes that lie in another file (Parquet, say)
by a digest of their own. What the cache says is taken for true only while the stamp is the same, and a file that was
written a moment ago is not kept: it may be written once more within the same tick of the clock.

Nothing depends on the cache: without one, images are opened as the first time.
"""

import contextlib
import dataclasses
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from vlm_jax.locations import user_cache

FILE = "images.sqlite3"
SETTLED = 2.0
"""Seconds since the last change of a file, before which it is not kept."""
_FORGOTTEN = 180  # days without use after which an image is dropped
_USED_AGAIN = 7  # days after which a use is noted again
_AT_ONCE = 500  # keys of a query
_SCHEMA = 2  # of the table; a file of another one is made anew
_TABLE = """CREATE TABLE IF NOT EXISTS images (
    key TEXT PRIMARY KEY, stamp TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    decoded INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL) WITHOUT ROWID"""
_KEEP = """INSERT INTO images (key, stamp, width, height, decoded, used) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (key) DO UPDATE SET
    width = excluded.width, height = excluded.height,
    decoded = CASE WHEN stamp = excluded.stamp THEN max(decoded, excluded.decoded) ELSE excluded.decoded END,
    stamp = excluded.stamp, used = excluded.used"""


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What is known of one image.

    Attributes:
      stamp: of the file when it was looked at; empty for bytes, whose key is a digest of them.
      size: (width, height) in pixels, upright.
      decoded: whether all of its pixels were decoded without an error.
    """

    stamp: str
    size: tuple[int, int]
    decoded: bool = False


class ImageCache:
    """Facts of images by key. Safe from several threads and processes."""

    def __init__(self, file: Path | None, *, say: Callable[[str], None] = lambda line: None):
        """
        Args:
          file: the cache; None keeps nothing.
          say: called with a line where the file cannot be used.
        """
        self._file, self._say, self._lock = file, say, threading.Lock()
        self._connection: sqlite3.Connection | None = None

    @classmethod
    def of_user(cls, *, say: Callable[[str], None] = lambda line: None) -> "ImageCache":
        """The one in the user's cache (`locations.user_cache`)."""
        return cls(user_cache(FILE), say=say)

    def known(self, keys: Iterable[str]) -> dict[str, ImageFacts]:
        """What is known of those images that were kept, whatever became of them since: compare the stamps."""
        found: dict[str, ImageFacts] = {}
        keys, now = list(keys), _day()
        with self._table() as table:
            for start in range(0, len(keys) if table else 0, _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                marks = ",".join("?" * len(some))
                columns = "key, stamp, width, height, decoded, used"
                rows = table.execute(f"SELECT {columns} FROM images WHERE key IN ({marks})", some).fetchall()
                for key, stamp, width, height, decoded, _ in rows:
                    found[key] = ImageFacts(stamp, (width, height), bool(decoded))
                again = [(now, row[0]) for row in rows if row[-1] < now - _USED_AGAIN]
                table.executemany("UPDATE images SET used = ? WHERE key = ?", again)
        return found

    def keep(self, facts: Mapping[str, ImageFacts]) -> None:
        """Adds what was found out; of an image with the stamp it had, what else was known of it stays."""
        now = _day()
        rows = [(key, one.stamp, *one.size, int(one.decoded), now) for key, one in facts.items()]
        if rows:
            with self._table() as table:
                if table:
                    table.executemany(_KEEP, rows)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _table(self) -> Iterator[sqlite3.Connection | None]:
        """The open file, in a transaction; None where there is none. An error of it ends its use, never the run."""
        with self._lock:
            try:
                if self._connection is None and self._file is not None:
                    self._connection = self._opened(self._file)
            except (sqlite3.Error, OSError) as error:
                self._give_up(error)
            try:
                with self._connection or contextlib.nullcontext():
                    yield self._connection
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._say(
            f"{self._file}: cannot be used ({error}); images are looked at without it. Remove it if that stays so"
        )
        self._file = self._connection = None

    def _opened(self, file: Path) -> sqlite3.Connection:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Not in WAL mode, which needs shared memory that network file systems of home folders do not have.
        connection = sqlite3.connect(file, timeout=30, check_same_thread=False)
        with connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _SCHEMA):
                connection.execute("DROP TABLE IF EXISTS images")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            connection.execute("DELETE FROM images WHERE used < ?", (_day() - _FORGOTTEN,))
        return connection


def settled(modified: float) -> bool:
    """Whether a file that was last changed at this time (seconds since 1970) can be kept by its stamp."""
    return modified < time.time() - SETTLED


def _day() -> int:
    return int(time.time() // 86_400)


NO_CACHE = ImageCache(None)


def key_of(image: str | bytes) -> str | None:
    """What an image is kept by; None for a name that no table can hold."""
    if isinstance(image, bytes):
        return f"embedded:{hashlib.blake2b(image, digest_size=16).hexdigest()}"
    try:
        image.encode()
    except UnicodeEncodeError:
        return None
    return image

"""Every answer that was ever paid for, on disk the moment it came: an SQLite file, and images beside it.

An answer is found by the key of its request (`request.Request.key`): whatever asks the same again has it for nothing.
Each is one transaction that is on the disk before anything is done with it; a process that is killed loses what was on
its way and nothing else. SQLite rather than files of our own: it is the crash-safe index that every Python brings.
Its write-ahead log wants a disk of this machine, not a network's; parts of a run on several machines have a file each.
"""

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from data_pipeline.teachers.request import CallFailed, Failure, ImageFile, Reply, Request, Usage
from vlm_jax.errors import InputError

FILE = "replies.sqlite"
_AT_ONCE = 500  # keys of one query
_TABLES = """
CREATE TABLE IF NOT EXISTS replies (
  key TEXT PRIMARY KEY, stage TEXT, model TEXT, kind TEXT, request TEXT, version TEXT, text TEXT, image TEXT,
  vector TEXT, failure TEXT, detail TEXT, at TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
  number INTEGER PRIMARY KEY, key TEXT, stage TEXT, model TEXT, outcome TEXT, usage TEXT, cost REAL, final INTEGER,
  raw BLOB, at TEXT);
CREATE TABLE IF NOT EXISTS jobs (title TEXT PRIMARY KEY, model TEXT, state TEXT, name TEXT, place TEXT, keys BLOB);
"""


@dataclass
class Job:
    """A batch job. `title` is ours, `place` its folder; `name` is the service's, "" until it is known."""

    title: str
    place: str
    keys: list[str]
    name: str = ""


class Store:
    """The answers of a run. `calls` has one line for each response that came, used or not: that is what was paid."""

    def __init__(self, folder: Path, part: str = ""):
        """
        Args:
          part: which of several machines this is, such as "0-of-4": it writes a file of its own and reads that of the
            whole beside it. The whole reads those of all parts.

        Raises:
          InputError: a file that is no store.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.path = folder, folder / _file(part)
        self._database = _opened(self.path, write=True)
        others = [folder / FILE] if part else sorted(folder.glob("replies-*.sqlite"))
        self._others = [_opened(path, write=False) for path in others if path.is_file()]

    def close(self) -> None:
        for database in (self._database, *self._others):
            database.close()

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are answered, or have failed for good. An image that is no longer there is none."""
        rows = self._select("key, image", keys)
        return {key for key, image in rows if image is None or self._image_path(image).is_file()}

    def outcomes(self, keys: Sequence[str]) -> dict[str, Reply | Failure]:
        """What there is for these keys; images are read when `image_file` is asked for."""
        columns = "key, text, vector, version, failure, detail"
        return {key: _outcome(*rest) for key, *rest in self._select(columns, keys)}

    def image_file(self, key: str) -> ImageFile | None:
        """The image that answers a request."""
        name = next((name for (name,) in self._select("image", [key]) if name is not None), None)
        if name is None:
            return None
        return ImageFile(name.partition(".")[0], self._image_path(name), _media_type(name))

    def keep(self, key: str, request: Request, model: str, outcome: Reply | CallFailed, *, cost: float) -> None:
        """An answer, or a failure for good: on disk when this returns. Where two processes asked the same, the first
        answer stays, so that both go on from one.

        Raises:
          InputError: the disk is full, or cannot be written.
        """
        image = self._write_image(outcome.image) if isinstance(outcome, Reply) and outcome.image is not None else None
        row = {
            "key": key,
            "stage": request.stage,
            "model": model,
            "kind": request.kind,
            "request": json.dumps({"prompt": request.prompt, "sample": request.sample}, ensure_ascii=False),
            "image": image,
            "at": _now(),
        }
        if isinstance(outcome, Reply):
            vector = None if outcome.vector is None else json.dumps(outcome.vector)
            row |= {"version": outcome.model, "text": outcome.text, "vector": vector}
        else:
            row |= {"failure": outcome.reason, "detail": outcome.detail}
        row = {name: _writable(value) for name, value in row.items()}
        with self._transaction():
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            if not self.known([key]):
                self._database.execute(f"INSERT OR REPLACE INTO replies ({names}) VALUES ({marks})", list(row.values()))
            self._add_call(key, request, model, outcome, cost, final=True)

    def note_call(self, key: str, request: Request, model: str, failed: CallFailed, *, cost: float) -> None:
        """A response that was of no use, and after which the request is sent again."""
        with self._transaction():
            self._add_call(key, request, model, failed, cost, final=False)

    def note_job(self, job: Job, model: str, state: str) -> None:
        """What is known of a batch job: noted, made, collected, or lost."""
        keys = zlib.compress("\n".join(job.keys).encode())
        with self._transaction():
            self._database.execute(
                "INSERT OR REPLACE INTO jobs (title, model, state, name, place, keys) VALUES (?, ?, ?, ?, ?, ?)",
                (job.title, model, state, job.name, job.place, keys),
            )

    def open_jobs(self, model: str) -> list[Job]:
        """Jobs whose answers were not collected yet."""
        rows = self._database.execute(
            "SELECT title, place, keys, name FROM jobs WHERE model = ? AND state IN ('noted', 'made') ORDER BY rowid",
            (model,),
        )
        return [
            Job(title, place, zlib.decompress(keys).decode().split("\n"), name) for title, place, keys, name in rows
        ]

    def count_jobs(self) -> int:
        return self._database.execute("SELECT COUNT(*) FROM jobs").fetchone()[0]

    def spent(self) -> float:
        """Dollars of all calls."""
        return sum(cost for (cost,) in self._every("SELECT COALESCE(SUM(cost), 0) FROM calls"))

    def sums(self) -> list[dict]:
        """By stage and model: calls, dollars, and usage, of the calls that brought what the store answers with.

        Those that had to be made again are not in it, so that it is the same however often a run was interrupted.
        """
        found: dict[tuple[str, str], dict] = {}
        # One answer a key, should two machines have asked for the same.
        rows = {row[:3]: row[3:] for row in self._every("SELECT stage, model, key, usage, cost FROM calls WHERE final")}
        for (stage, model, _), (usage, cost) in sorted(rows.items()):
            one = found.setdefault((stage, model), {"stage": stage, "model": model, "calls": 0, "cost": 0.0})
            one["calls"] += 1
            one["cost"] += cost
            one["usage"] = one.get("usage", Usage()) + Usage(**json.loads(usage))
        return [{**one, "cost": round(one["cost"], 6), "usage": asdict(one["usage"])} for one in found.values()]

    def versions(self) -> dict[str, list[str]]:
        """{model as asked: the versions that answered}, in order."""
        rows = self._every("SELECT DISTINCT model, version FROM replies WHERE version IS NOT NULL")
        found: dict[str, list[str]] = {}
        for model, version in sorted(set(rows)):
            found.setdefault(model, []).append(version)
        return found

    def days(self) -> tuple[str, str] | None:
        """First and last day of the answers, UTC."""
        times = [time for row in self._every("SELECT MIN(at), MAX(at) FROM replies") for time in row if time]
        return (min(times)[:10], max(times)[:10]) if times else None

    def _add_call(
        self, key: str, request: Request, model: str, outcome: Reply | CallFailed, cost: float, *, final: bool
    ) -> None:
        name = "answered" if isinstance(outcome, Reply) else outcome.reason
        usage = json.dumps(asdict(outcome.usage))
        raw = zlib.compress(outcome.raw.encode("utf-8", "surrogatepass"))
        self._database.execute(
            "INSERT INTO calls (key, stage, model, outcome, usage, cost, final, raw, at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (key, request.stage, model, name, usage, cost, final, raw, _now()),
        )

    def _select(self, columns: str, keys: Sequence[str]) -> Iterator[tuple]:
        keys = list(dict.fromkeys(keys))
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            marks = ",".join("?" * len(some))
            yield from self._every(f"SELECT {columns} FROM replies WHERE key IN ({marks})", some)

    def _every(self, query: str, values: Sequence = ()) -> Iterator[tuple]:
        """The rows of this file and of those that are read beside it."""
        for database in (self._database, *self._others):
            yield from database.execute(query, values)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            with contextlib.suppress(sqlite3.OperationalError):
                self._database.execute("ROLLBACK")
            raise InputError(
                f"{self.path}: an answer cannot be kept ({error}); free some room, then run the same command: "
                "all that was kept is used"
            ) from None

    def _image_path(self, name: str) -> Path:
        return self.folder / "images" / name[:2] / name

    def _write_image(self, content: bytes) -> str:
        """Named by its content, and on the disk before the answer says that it is there."""
        name = f"{hashlib.sha256(content).hexdigest()}.{_ending(content)}"
        path = self._image_path(name)
        if path.is_file():
            return name
        partial = path.with_name(f".{name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise InputError(
                f"{path}: an image cannot be kept ({error.strerror}); free some room, then run the same command"
            ) from None
        return name


def _file(part: str) -> str:
    return f"replies-{part}.sqlite" if part else FILE


def _opened(path: Path, *, write: bool) -> sqlite3.Connection:
    try:
        if not write:
            database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
            database.execute("SELECT COUNT(*) FROM replies")
            return database
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.executescript(_TABLES)
        return database
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path}: cannot be read ({error}); restore it, or name a new folder") from None


_KINDS = {b"\x89PNG": ("png", "image/png"), b"\xff\xd8\xff": ("jpg", "image/jpeg"), b"RIFF": ("webp", "image/webp")}


def _ending(content: bytes) -> str:
    return next((ending for start, (ending, _) in _KINDS.items() if content.startswith(start)), "bin")


def media_type_of(path: Path) -> str:
    """Of an image's file, by what it begins with, whatever it is called."""
    with path.open("rb") as file:
        return _media_type(f".{_ending(file.read(12))}")


def _media_type(name: str) -> str:
    ending = name.rpartition(".")[2]
    return next((media for end, media in _KINDS.values() if end == ending), "application/octet-stream")


def _outcome(text, vector, version, failure, detail) -> Reply | Failure:
    if failure is not None:
        return Failure(failure, detail or "")
    return Reply(text=text, vector=None if vector is None else tuple(json.loads(vector)), model=version)


def _writable(value: str | None) -> str | None:
    """Half of a surrogate pair, which models write and UTF-8 does not have, as a question mark."""
    return None if value is None else value.encode("utf-8", "replace").decode("utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

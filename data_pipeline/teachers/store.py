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

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        try:
            self._database = sqlite3.connect(folder / FILE, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{folder / FILE}: cannot be read ({error}); restore it, or name a new folder") from None

    def close(self) -> None:
        self._database.close()

    def known(self, keys: Sequence[str]) -> set[str]:
        """Those of the keys that are answered, or have failed for good."""
        return {key for (key,) in self._select("key", keys)}

    def outcomes(self, keys: Sequence[str]) -> dict[str, Reply | Failure]:
        """What there is for these keys; images are read when `image_file` is asked for."""
        columns = "key, text, vector, version, failure, detail"
        return {key: _outcome(*rest) for key, *rest in self._select(columns, keys)}

    def image_file(self, key: str) -> ImageFile | None:
        """The image that answers a request."""
        row = self._database.execute("SELECT image FROM replies WHERE key = ?", (key,)).fetchone()
        if row is None or row[0] is None:
            return None
        name = row[0]
        return ImageFile(name.partition(".")[0], self._image_path(name), _media_type(name))

    def keep(self, key: str, request: Request, model: str, outcome: Reply | CallFailed, *, cost: float) -> None:
        """An answer, or a failure for good: on disk when this returns.

        Raises:
          InputError: the disk is full, or cannot be written.
        """
        image = self._write_image(outcome.image) if isinstance(outcome, Reply) and outcome.image is not None else None
        row = {
            "key": key,
            "stage": request.stage,
            "model": model,
            "kind": request.kind,
            "request": json.dumps({"prompt": request.prompt, "variant": request.variant}, ensure_ascii=False),
            "image": image,
            "at": _now(),
        }
        if isinstance(outcome, Reply):
            vector = None if outcome.vector is None else json.dumps(outcome.vector)
            row |= {"version": outcome.model, "text": outcome.text, "vector": vector}
        else:
            row |= {"failure": outcome.reason, "detail": outcome.detail}
        with self._transaction():
            names = ", ".join(row)
            marks = ", ".join("?" * len(row))
            self._database.execute(f"INSERT OR IGNORE INTO replies ({names}) VALUES ({marks})", list(row.values()))
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
        return self._database.execute("SELECT COALESCE(SUM(cost), 0) FROM calls").fetchone()[0]

    def sums(self) -> list[dict]:
        """By stage and model: calls, dollars, and usage, of the calls that brought what the store answers with.

        Those that had to be made again are not in it, so that it is the same however often a run was interrupted.
        """
        found: dict[tuple[str, str], dict] = {}
        for stage, model, usage, cost in self._database.execute(
            "SELECT stage, model, usage, cost FROM calls WHERE final ORDER BY stage, model, key"
        ):
            one = found.setdefault((stage, model), {"stage": stage, "model": model, "calls": 0, "cost": 0.0})
            one["calls"] += 1
            one["cost"] += cost
            one["usage"] = one.get("usage", Usage()) + Usage(**json.loads(usage))
        return [{**one, "cost": round(one["cost"], 6), "usage": asdict(one["usage"])} for one in found.values()]

    def versions(self) -> dict[str, list[str]]:
        """{model as asked: the versions that answered}, in order."""
        rows = self._database.execute(
            "SELECT DISTINCT model, version FROM replies WHERE version IS NOT NULL ORDER BY model, version"
        )
        found: dict[str, list[str]] = {}
        for model, version in rows:
            found.setdefault(model, []).append(version)
        return found

    def days(self) -> tuple[str, str] | None:
        """First and last day of the answers, UTC."""
        first, last = self._database.execute("SELECT MIN(at), MAX(at) FROM replies").fetchone()
        return None if first is None else (first[:10], last[:10])

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
            yield from self._database.execute(f"SELECT {columns} FROM replies WHERE key IN ({marks})", some)

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
                f"{self.folder / FILE}: an answer cannot be kept ({error}); free some room, then run the same command: "
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


_KINDS = {b"\x89PNG": ("png", "image/png"), b"\xff\xd8\xff": ("jpg", "image/jpeg"), b"RIFF": ("webp", "image/webp")}


def _ending(content: bytes) -> str:
    return next((ending for start, (ending, _) in _KINDS.items() if content.startswith(start)), "bin")


def _media_type(name: str) -> str:
    ending = name.rpartition(".")[2]
    return next((media for end, media in _KINDS.values() if end == ending), "application/octet-stream")


def _outcome(text, vector, version, failure, detail) -> Reply | Failure:
    if failure is not None:
        return Failure(failure, detail or "")
    return Reply(text=text, vector=None if vector is None else tuple(json.loads(vector)), model=version)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

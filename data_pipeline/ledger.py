"""What became of every record that did not enter training as it stood: left out or repaired, and why.

One JSON line each in `ledger.jsonl` beside the run, and counts for the console. Deciding is `measure`'s.
"""

import json
import threading
from collections import Counter
from pathlib import Path

DROPPED, REPAIRED = "dropped", "repaired"
UNUSABLE = ("record", "image", "conversation", "unreadable")
"""Kinds of reason for which a record is left out whatever the sizes of rows are."""


class Ledger:
    """Notes each record once, also over the restarts of a run. Safe from several threads."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """(action, kind of reason) to how many records."""
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str], str] = {}
        self._path: Path | None = None
        self._on_disk: set[tuple[str, str]] = set()  # noted by an earlier part of the run

    def keep_in(self, path: Path) -> None:
        """Adds what was noted, and what will be, to a file, which may hold an earlier part of the run's."""
        with self._lock:
            self._path = path
            for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
                try:
                    entry = json.loads(line)
                    self._on_disk.add((entry["where"], entry["kind"]))
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was killed while writing it
            self._write([line for key, line in self._noted.items() if key not in self._on_disk])

    def note(self, where: str, action: str, kind: str, reason: str, *, count: int = 1) -> None:
        """
        Args:
          where: the record, as error lines name it.
          action: DROPPED or REPAIRED.
          kind: the reason in a word or two, which counts are by; `reason` is the whole line.
          count: of the records that the line is about.
        """
        with self._lock:
            if (where, kind) in self._noted:
                return
            entry = {"where": where, "action": action, "kind": kind, "reason": reason}
            self._noted[where, kind] = json.dumps(entry, ensure_ascii=False) + "\n"
            self.counts[action, kind] += count
            if (where, kind) not in self._on_disk:
                self._write([self._noted[where, kind]])

    def summary(self) -> str:
        """The counts in a line; empty where every record is used as it stands."""
        return ", ".join(f"{count:,} {action} ({kind})" for (action, kind), count in sorted(self.counts.items()))

    def reasons(self) -> list[str]:
        """The reason of everything that was noted, each a line; `vlm_jax.error_list` makes many of them readable."""
        return [json.loads(line)["reason"] for line in self._noted.values()]

    def _write(self, lines: list[str]) -> None:
        if self._path is not None and lines:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(lines)

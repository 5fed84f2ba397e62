"""Writers of the text formats: JSON lines, a JSON list, a CSV table."""

import csv
import json
from typing import Any

from data_pipeline.sources.openai import data_uri

_FIRST = ("id", "image", "question", "answer")


class Lines:
    """JSON lines, one entry a line."""

    def __init__(self, path: str):
        self._file = open(path, "w", encoding="utf-8", newline="\n")

    def write(self, entry: dict[str, Any]) -> None:
        self._file.write(_json(entry) + "\n")

    def close(self) -> None:
        self._file.close()


class List(Lines):
    """A JSON list, one entry a line."""

    def __init__(self, path: str):
        super().__init__(path)
        self._before = "[\n"

    def write(self, entry: dict[str, Any]) -> None:
        self._file.write(self._before + _json(entry))
        self._before = ",\n"

    def close(self) -> None:
        if not self._file.closed:
            self._file.write("\n]\n" if self._before == ",\n" else "[]\n")
        super().close()


class CommaSeparated:
    """A CSV table with the columns that are used; lists and objects are cells of JSON. Held until it is closed."""

    def __init__(self, path: str):
        self._path = path
        self._rows: list[dict[str, Any]] = []

    def write(self, entry: dict[str, Any]) -> None:
        self._rows.append({name: value if isinstance(value, str) else _json(value) for name, value in entry.items()})

    def close(self) -> None:
        columns = list(dict.fromkeys([*_FIRST, *(name for row in self._rows for name in row)]))
        # Line ends as RFC 4180 has them: then the writer puts cells with either character in quotes.
        with open(self._path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", lineterminator="\r\n")
            writer.writeheader()
            writer.writerows(self._rows)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=data_uri)

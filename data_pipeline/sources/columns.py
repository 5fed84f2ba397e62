"""Other people's names for what the forms read, and a question for data that has none: both as settings say.

`{"image": "img_path", "answer": "caption"}` names, for what is read here, the column or key that holds it there. It is
applied to the entries of a file before anything else looks at them; what they then mean is the forms'.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipeline.records import TEXT_FIELDS
from data_pipeline.sources import csv_files
from data_pipeline.sources.containers import Entries, Entry
from data_pipeline.sources.forms import keys_of
from vlm_jax.errors import InputError

READ = (
    *("id", "image", "images", "question", "answer", "answers", "messages", "conversations", "system", "question_id"),
    *("image_id", "prompt", "completion", "query", "response"),
    *(*TEXT_FIELDS, "provenance"),
)
"""What an entry's parts may be called by a mapping: the keys that forms read."""
_ASKS = ("messages", "conversations", "prompt", "query")


def errors_of(columns: Any, place: str) -> list[str]:
    """What is wrong with a mapping of columns as a setting, each a line that begins with `place`."""
    if not isinstance(columns, Mapping):
        return [f"{place} is {columns!r}; wanted our names with theirs, such as {{'image': 'img_path'}}"]
    errors = []
    for ours, theirs in columns.items():
        if ours not in READ:
            nearest = difflib.get_close_matches(str(ours), READ, n=1)
            known = f"is {nearest[0]!r} meant?" if nearest else f"there are {', '.join(READ)}"
            errors.append(f"{place}: nothing called {ours!r} is read; {known}")
        if not isinstance(theirs, str) or not theirs:
            errors.append(f"{place}.{ours} is {theirs!r}; wanted the name of a column or key of the data")
    return errors


class RenamedEntries(Entries):
    """The entries of a file under the names that the forms read."""

    def __init__(self, entries: Entries, columns: Mapping[str, str], question: str = ""):
        """
        Args:
          columns: our name to theirs.
          question: asked by entries that ask nothing themselves; "" for none.

        Raises:
          InputError: a name that nothing reads, or a column that no entry has, with the nearest.
        """
        if errors := errors_of(columns, f"{entries.path}: columns"):
            raise InputError(errors)
        self.path, self.key, self.header, self.lists = entries.path, entries.key, entries.header, entries.lists
        self.content = entries.content
        if entries.path.lower().endswith(csv_files.SUFFIXES):  # whose names are read without regard to case
            columns = {ours: theirs.strip().lower() for ours, theirs in columns.items()}
        self._entries, self._columns, self._question = entries, dict(columns), question
        self._named = {*self._columns, *self._columns.values()}
        self._check_columns()

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Entry:
        entry = self._entries[index]
        if not isinstance(entry.value, Mapping):
            return entry
        return Entry(entry.number, entry.place, self._renamed(entry.value), entry.error)

    def place(self, index: int) -> str:
        return self._entries.place(index)

    @property
    def stem(self) -> str:
        return self._entries.stem

    def objects(self) -> Iterator[Mapping[str, Any]]:
        return map(self._renamed, self._entries.objects())

    def _renamed(self, value: Mapping[str, Any]) -> dict[str, Any]:
        mapped = {ours: value[theirs] for ours, theirs in self._columns.items() if theirs in value}
        # What stands under one of our names without being what is meant by it is put away, not read as that.
        rest = {key: cell for key, cell in value.items() if key not in self._named}
        renamed = {**mapped, **rest}
        if self._question and not renamed.get("question") and not any(key in renamed for key in _ASKS):
            renamed["question"] = self._question
        return renamed

    def _check_columns(self) -> None:
        missing = dict(self._columns)
        found: dict[str, None] = {}
        for value in self._entries.objects():
            found.update(dict.fromkeys(map(str, value)))
            missing = {ours: theirs for ours, theirs in missing.items() if theirs not in value}
            if not missing:
                return
        if not found:
            return
        errors = []
        for ours, theirs in missing.items():
            nearest = difflib.get_close_matches(theirs, found, n=1)
            errors.append(
                f"{self.path}: no entry has {theirs!r}, which is named for {ours!r}; the columns found are "
                + keys_of(found)
                + (f". Is {nearest[0]!r} meant?" if nearest else "")
            )
        raise InputError(errors)

"""What an official evaluation knows of a question beyond its words: ids, split, and the groups it is counted in.

Readers of benchmarks keep it in a record's `provenance`, under `benchmark`, so that it travels through every format
that holds provenance. Also files beside the questions, such as annotations, whose entries are found by an id.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.records import Record
from data_pipeline.sources.containers import Entries
from data_pipeline.values import json_type
from vlm_jax.errors import InputError

KEY = "benchmark"
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Official:
    """Of one question.

    Attributes:
      ids: {field of the official file: id}, whole numbers and texts as they are there.
      split: as the file or its name says it; "" where neither does.
      groups: {what questions are told apart by: value}.
    """

    ids: Mapping[str, int | str] = dataclasses.field(default_factory=dict)
    split: str = ""
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)


def written(
    entry: Mapping[str, Any], id_fields: Sequence[str], split: str, groups: Mapping[str, Any]
) -> dict[str, Any]:
    """As a record's provenance holds it; groups without a value are left out."""
    ids = {name: entry[name] for name in id_fields if _is_id(entry.get(name))}
    parts = {"ids": ids, "split": split, "groups": _named(groups)}
    return {key: value for key, value in parts.items() if value}


def of(record: Record) -> Official:
    """What a record's provenance holds; nothing of data that is no benchmark's."""
    kept = (record.provenance or {}).get(KEY)
    if not isinstance(kept, Mapping):
        return Official()
    ids, split, groups = (kept.get(name) for name in ("ids", "split", "groups"))
    return Official(
        {name: value for name, value in ids.items() if _is_id(value)} if isinstance(ids, Mapping) else {},
        split if isinstance(split, str) else "",
        _named(groups) if isinstance(groups, Mapping) else {},
    )


def first_of(value: Any) -> Any:
    """Of what may be several, the first: a question is counted in one group of a kind."""
    return (value[0] if value else None) if isinstance(value, list) else value


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value) or isinstance(value, int) and not isinstance(value, bool)


def _named(groups: Mapping[str, Any]) -> dict[str, str]:
    """Those that are texts or whole numbers, as texts."""
    return {name: str(value) for name, value in groups.items() if _is_id(value)}


class EntriesById:
    """The entries of a file, found by an id; only the ids are held in memory."""

    def __init__(self, entries: Entries, key: str, kind: type[int] | type[str], name: str = "entry"):
        """
        Args:
          key: of the id; kind: whole numbers of up to 64 bits, or texts.
          name: what an entry is called in error lines.

        Raises:
          InputError: ids that are missing, of another type, or there twice, in one line each.
        """
        self._entries, self._kind = entries, kind
        values = (entries[index].value for index in range(len(entries)))
        ids = [value.get(key) if isinstance(value, Mapping) else None for value in values]
        if wrong := [index for index, id in enumerate(ids) if not self._fits(id)]:
            found = ids[wrong[0]]
            found = "of more than 64 bits" if type(found) is int else json_type(found)
            wanted = "a whole number" if kind is int else "a text"
            more = f" (and so in {len(wrong) - 1} more)" if wrong[1:] else ""
            raise InputError(f"{entries.path}, {name} {wrong[0] + 1}: {key!r} is {found}; it must be {wanted}{more}")
        array = np.asarray(ids, np.int64) if kind is int else np.asarray([id.encode() for id in ids], np.bytes_)
        self._places = np.argsort(array, kind="stable")
        self._ids = array[self._places]
        doubled = np.unique(self._ids[1:][self._ids[1:] == self._ids[:-1]])
        if len(doubled):
            named = ", ".join(repr(id.decode() if kind is str else id) for id in doubled[:_SHOWN].tolist())
            more = f" and {len(doubled) - _SHOWN} more" if len(doubled) > _SHOWN else ""
            raise InputError(f"{entries.path}: holds several {name}s for {key!r} {named}{more}; keep one of each")

    @property
    def path(self) -> str:
        return self._entries.path

    def __contains__(self, id: Any) -> bool:
        return self._find(id) is not None

    def get(self, id: Any) -> Mapping[str, Any] | None:
        """The entry of an id; None where there is none."""
        place = self._find(id)
        return None if place is None else self._entries[place].value

    def _fits(self, id: Any) -> bool:
        if self._kind is str:
            return isinstance(id, str) and bool(id) and not id.endswith("\0")
        return type(id) is int and -(2**63) <= id < 2**63

    def _find(self, id: Any) -> int | None:
        if not self._fits(id):
            return None
        key = id if self._kind is int else id.encode()
        if self._kind is str and len(key) > self._ids.itemsize:
            return None
        # Of the array's own type, or all of it would be converted for each look-up.
        at = int(np.searchsorted(self._ids, np.asarray(key, self._ids.dtype)))
        return int(self._places[at]) if at < len(self._ids) and self._ids[at] == key else None

"""Which records a run learns from, in little: enough to tell a person what was added, removed or changed since.

At most `MOST` records are written down, each by its id and a short digest of its words and its images' names. Whether
the data differ at all is for `dataset.Dataset.fingerprint` to say.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from data_pipeline.parts import Part
from data_pipeline.records import Record
from vlm_jax import locations
from vlm_jax.errors import InputError

FILE = "data_records.json"
MOST = 65_536
_SHOWN = 3
_ID = 80  # characters of an id that are kept


def written_down(parts: Sequence[Part], words: Callable[[Any], Any]) -> dict[str, Any] | None:
    """{part: {id: digest}} as JSON can hold it; None where there are more than `MOST` records.

    Args:
      words: of a message, what it is known by.
    """
    if sum(len(part.source) for part in parts) > MOST:
        return None
    return {str(number): _records(part, words) for number, part in enumerate(parts)}


def _records(part: Part, words: Callable[[Any], Any]) -> dict[str, str]:
    found = {}
    for index in range(len(part.source)):
        try:
            record: Record = part.source[index]
        except InputError:
            found[f"(entry {index + 1}, which cannot be read)"] = ""
            continue
        text = repr([words(message) for message in record.messages])
        found[record.id[:_ID]] = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
    return found


def read(home: PurePath) -> dict[str, Any] | None:
    """What a run wrote down when it began; None where it did not."""
    with locations.answering(home):
        path = home / FILE
        return json.loads(path.read_text()) if path.is_file() else None


def differences(
    before: Mapping[str, Mapping[str, str]] | None, now: Mapping[str, Mapping[str, str]] | None
) -> list[str]:
    """In a few words each, how the records differ; none where that is not known."""
    if before is None or now is None:
        return []
    lines = []
    if len(before) != len(now):
        lines.append(f"{len(before)} parts then, {len(now)} now")
    for number in before.keys() & now.keys():
        then, here = before[number], now[number]
        kinds = {
            "added": [key for key in here if key not in then],
            "removed": [key for key in then if key not in here],
            "changed": [key for key in here if key in then and then[key] != here[key]],
        }
        lines += [_named(kind, ids) for kind, ids in kinds.items() if ids]
        if not any(kinds.values()) and list(then) != list(here):
            lines.append("the same records in another order")
    return lines or ["the same records; their images, or a part's weight, seed or visual tokens, are others"]


def _named(kind: str, ids: Sequence[str]) -> str:
    shown = ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
    return f"{len(ids):,} {kind} ({shown})"

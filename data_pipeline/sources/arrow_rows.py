"""Rows of Arrow tables, of Parquet and of `datasets`, as the forms read them.

Images are bytes or paths, wherever they stand; classes are their names, as the features of `datasets` list them; a
number of single or half precision is the shortest one of its own precision, a decimal the text it is written as:
answers are trained on as texts, and 0.1 is not 0.10000000149011612.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from data_pipeline.values import UnnamedClass, WrittenFloat
from vlm_jax import json_objects
from vlm_jax.errors import InputError

_KEY = b"huggingface"
_LARGEST, _MOST_NAMES, _DEEPEST = 1 << 26, 1_000_000, 32
_FEW = 1_000
"""Numbers of a list that may be answers; more are an embedding or pixels, and are left as they are."""

Reading = Callable[[Any], Any]


def readings(schema: Any, features: Any, place: str) -> dict[str, Reading]:
    """How the cells of columns are read beyond what Arrow makes of them, by column.

    Args:
      features: those of `datasets`, as JSON; None for those that the schema's metadata has, if it has any.
      place: the file, as error lines begin.

    Raises:
      InputError: the features cannot be read, or the names of classes are no texts.
    """
    features = features_of(schema, place) if features is None else features
    described = features if isinstance(features, Mapping) else {}
    found = {}
    for field in schema:
        steps = [_of_type(field.type), _of_feature(described.get(field.name), f"{place}: the column {field.name!r}")]
        if steps := [step for step in steps if step is not None]:
            found[field.name] = _after(steps)
    return found


def features_of(schema: Any, place: str) -> Any:
    """The features that `datasets` writes into the metadata of a schema; None where there are none.

    Raises:
      InputError: they are no JSON, or too large.
    """
    text = (schema.metadata or {}).get(_KEY)
    if text is None:
        return None
    try:
        if len(text) > _LARGEST:
            raise ValueError(f"they take {len(text):,} bytes")
        about = json.loads(text, object_pairs_hook=json_objects.object_of)
    except (InputError, ValueError, RecursionError) as error:
        raise InputError(f"{place}: the features that its schema describes cannot be read ({error})") from None
    info = about.get("info") if isinstance(about, Mapping) else None
    return info.get("features") if isinstance(info, Mapping) else None


def plain_row(row: Mapping[str, Any], read: Mapping[str, Reading] | None = None) -> dict[str, Any]:
    """The row as the forms read it."""
    return {name: _plain(read[name](value) if read and name in read else value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """A cell with its images as bytes or paths, wherever they stand in it."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"}:
            return value["bytes"] if value["bytes"] is not None else value["path"]
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Decimal):
        text = format(value, "f")
        return WrittenFloat(text) if "." in text else int(text)
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _after(steps: list[Reading]) -> Reading:
    def read(value: Any) -> Any:
        for step in steps:
            value = step(value)
        return value

    return read


def _of_type(kind: Any) -> Reading | None:
    """What brings numbers of less than double precision to the nearest double of their shortest text."""
    import numpy as np
    from pyarrow import types

    if types.is_float32(kind) or types.is_float16(kind):
        narrow = np.float32 if types.is_float32(kind) else np.float16
        return lambda value: None if value is None else float(str(narrow(value)))
    if types.is_dictionary(kind):
        return _of_type(kind.value_type)
    if types.is_struct(kind):
        inner = {field.name: read for field in kind if (read := _of_type(field.type)) is not None}
        return _fields(inner) if inner else None
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        one = _of_type(kind.value_type)
        return _elements(one, _FEW) if one is not None else None
    return None


def _of_feature(feature: Any, place: str, depth: int = 0) -> Reading | None:
    """What brings numbers of classes to their names.

    Raises:
      InputError: the names are no texts, or the feature is nested too deeply.
    """
    if depth > _DEEPEST:
        raise InputError(f"{place} has features that are nested too deeply")
    if isinstance(feature, list) and len(feature) == 1:  # how older versions write a sequence
        one = _of_feature(feature[0], place, depth + 1)
        return _elements(one) if one is not None else None
    if not isinstance(feature, Mapping):
        return None
    kind = feature.get("_type")
    if kind == "ClassLabel":
        names = feature.get("names")
        return None if names is None else _named(_checked(names, place))
    if kind in ("Sequence", "List", "LargeList"):
        one = _of_feature(feature.get("feature"), place, depth + 1)
        return _elements(one) if one is not None else None
    if isinstance(kind, str):
        return None
    inner = {str(key): read for key, one in feature.items() if (read := _of_feature(one, place, depth + 1)) is not None}
    return _fields(inner) if inner else None


def _checked(names: Any, place: str) -> list[str]:
    fine = isinstance(names, list) and 0 < len(names) <= _MOST_NAMES and all(isinstance(one, str) for one in names)
    if not fine:
        raise InputError(f"{place} is of classes whose names are no list of texts; write the data set again")
    return names


def _named(names: list[str]) -> Reading:
    """What brings the number of a class to its name; one without a name is no answer."""

    def read(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            return value
        return names[value] if 0 <= value < len(names) else UnnamedClass(value, len(names))

    return read


def _fields(inner: Mapping[str, Reading]) -> Reading:
    def read(value: Any) -> Any:
        if isinstance(value, list):  # a sequence of objects
            return [read(one) for one in value]
        if not isinstance(value, Mapping):
            return value
        # `datasets` keeps a sequence of objects as an object of lists.
        changed = {}
        for key, one in value.items():
            change = inner.get(key)
            changed[key] = one if change is None else _elements(change)(one) if isinstance(one, list) else change(one)
        return changed

    return read


def _elements(one: Reading, most: int | None = None) -> Reading:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return value if most is not None and len(value) > most else [read(inner) for inner in value]
        return one(value)

    return read

"""What a TFDS folder says of itself, checked before TFDS believes it.

TFDS imports the module of any class that `features.json` names, and reads as many examples as `dataset_info.json`
says: so the classes must be TFDS's own, and the counts those of the files.
"""

import json
from collections.abc import Iterator
from typing import Any

from vlm_jax import locations
from vlm_jax.errors import InputError

FEATURES = "features.json"
_CLASS_KEYS = ("pythonClassName", "python_class_name", "type")
_DEEPEST = 32


def check_features(folder: str) -> None:
    """Raises InputError where `features.json` names a class that is not TFDS's own, all of them listed."""
    path = f"{folder}/{FEATURES}"
    if not locations.is_file(path):
        return
    try:
        named = sorted(set(_classes(json.loads(locations.read_bytes(path)))))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); prepare the data set again") from None
    own = _own_classes()
    if wrong := [name for name in named if name not in own]:
        raise InputError(
            [
                f"{path}: names the class {name!r}, which is not one of TFDS's own; its module would be run to read "
                "the data; prepare the data set with features of tfds.features"
                for name in wrong
            ]
        )


def check_counts(folder: str, info: Any, split: str) -> None:
    """Raises InputError where a shard holds another number of examples than `dataset_info.json` says.

    Args:
      info: the `SplitInfo` of a split in ArrayRecord.
      split: its name.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    errors = []
    for path, expected in zip(map(str, info.filepaths), info.shard_lengths, strict=True):
        found = ArrayRecordReader(path).num_records() if locations.is_file(path) else None
        if found is None:
            errors.append(f"{path}: is missing; copy the folder again")
        elif found != expected:
            errors.append(
                f"{path}: holds {found:,} examples, and {folder}/dataset_info.json says {expected:,} of this shard of "
                f"{split}; copy the folder again"
            )
    if errors:
        raise InputError(errors)


def _classes(value: Any, depth: int = 0) -> Iterator[str]:
    """The names of classes anywhere in `features.json`; those of older versions may stand in JSON within a text."""
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    if isinstance(value, list):
        for one in value:
            yield from _classes(one, depth + 1)
    elif isinstance(value, dict):
        for key, one in value.items():
            if key in _CLASS_KEYS and isinstance(one, str):
                yield one
            elif key == "content" and isinstance(one, str) and one[:1] in ("{", "["):
                yield from _classes(json.loads(one), depth + 1)
            else:
                yield from _classes(one, depth + 1)


def _own_classes() -> set[str]:
    """Whole names, and the short ones of the oldest files, of the classes that `tfds.features` has."""
    import tensorflow_datasets as tfds

    classes = [one for one in vars(tfds.features).values() if isinstance(one, type)]
    classes = [one for one in classes if issubclass(one, tfds.features.FeatureConnector)]
    return {name for one in classes for name in (f"{one.__module__}.{one.__qualname__}", one.__name__)}

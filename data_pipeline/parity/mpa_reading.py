"""How MPA's files are read: strictly, each key by name, with all errors together.

What the entries are, and how they are written, is `mpa_files`'.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.marks import HALF_A_CHARACTER
from data_pipeline.sources.containers import did_you_mean, read_text
from data_pipeline.sources.detection import detect
from data_pipeline.sources.mpa import MovedImages
from data_pipeline.sources.opening import open_entries
from data_pipeline.values import json_type
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation.benchmarks import BENCHMARKS
from vlm_jax.json_objects import object_of


class WrittenNumber(str):
    """The text of a number of a JSON file: 3.10 stays 3.10. It is written back as the number it was."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: what error lines call it, its keys in the order of the file, and those that tell it."""

    title: str
    keys: tuple[str, ...]
    telling: tuple[str, ...]
    optional: tuple[str, ...] = ()


_TRUTH = ("ground_truth_question", "ground_truth_answer")
_PA_OWN, _PI_OWN = ("predicted_question", "predicted_answer"), ("PA_question", "PA_answer")
PA = Kind(
    "a PA file (the questions and answers that a teacher wrote)",
    ("question_id", "image_path", *_TRUTH, *_PA_OWN),
    _PA_OWN,
    optional=_TRUTH,
)
PI = Kind(
    "a PI file (what one model answers to a teacher's questions)",
    ("question_id", "image_path", *_PI_OWN, "predictions"),
    _PI_OWN,
)
TRAINING = Kind("a training file in LLaVA's form", ("id", "image", "conversations"), ("conversations",))
EVALUATION = Kind("an evaluation file of MPA's (answers to a benchmark)", (), ("GT_question", "GT_answer"))
_MAY_BE_NUMBERS = ("predicted_answer", "ground_truth_answer", "PA_answer", "predictions")
_WHOLE_NUMBER = re.compile(r"-?\d{1,18}")


def read_entries(path: str | Path, kind: Kind, made: Callable[..., Any], image_root: str | Path) -> list[Any]:
    """The entries of a file of one kind.

    Args:
      made: gives an entry from its checked values, and adds errors without a place.
      image_root: as `mpa_files.read_annotated` has it.

    Raises:
      InputError: as `mpa_files.read_annotated` says.
    """
    name = str(path)
    if image_root and not locations.is_folder(root := locations.absolute(image_root)):
        raise InputError(f"{root}: the image root of {name} is not a folder{did_you_mean(root)}")
    images = MovedImages(root) if image_root else None
    entries, errors = [], []
    first: dict[str, int] = {}
    for number, value in enumerate(_listed(name, kind), 1):
        wrong: list[str] = []
        place = f"{name}, entry {number}"
        checked = _checked(value, kind, wrong)
        id = checked.get(kind.keys[0])
        if id is not None:
            place += f" (id {str(id)!r})"
            if (earlier := first.setdefault(str(id), number)) != number:
                wrong.append(f"has the id of entry {earlier}; give each entry its own, or keep one of them")
        if images is not None and isinstance(image := checked.get("image_path"), str):
            checked["image_path"] = locations.join(root, images.find(image))
        entry = None if wrong else made(checked, wrong)
        errors += [f"{place}: {line}" for line in wrong]
        entries.append(entry)
    if errors:
        raise InputError(errors)
    return entries


def _listed(path: str, kind: Kind) -> list[Any]:
    """The entries of a file that is of this kind, as far as its keys say.

    Raises:
      InputError: in one line: not there, not UTF-8, no JSON, no list, without entries, or a file of another kind.
    """
    text, _ = read_text(path)
    wanted = f"where {kind.title} is wanted, a list of entries with {', '.join(map(repr, kind.keys))}"
    try:
        value = json.loads(text, parse_int=WrittenNumber, parse_float=WrittenNumber, object_pairs_hook=object_of)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        if found := _data_set(path):
            raise InputError(f"{path}: is not one JSON list but {found}, {wanted}") from None
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{path}: is not JSON ({reason}), {wanted}") from None
    objects = [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    if objects and not any(key in entry for entry in objects for key in kind.telling) or not isinstance(value, list):
        kinds = [one for one in (PA, PI, EVALUATION, TRAINING) if objects and set(one.telling) & objects[0].keys()]
        found = kinds[0].title if kinds else _data_set(path) or _type(objects[0] if objects else value)
        raise InputError(f"{path}: is {found}, {wanted}")
    if not value:
        raise InputError(f"{path}: is a list without entries, {wanted}")
    return value


def _data_set(path: str) -> str:
    """What a file of another program is called in an error line; "" where its form is not known."""
    try:
        form = detect(open_entries(path))
    except InputError:
        return ""
    title = next((one.title for one in BENCHMARKS.values() if one.form == form != "table"), "")
    return f"a file of {title}'s questions (format {form!r})" if title else f"a data set in the format {form!r}"


def _checked(value: Any, kind: Kind, errors: list[str]) -> dict[str, Any]:
    """The values of an entry that are in order, ids as whole numbers or texts."""
    if not isinstance(value, Mapping):
        errors.append(f"is {_type(value)}; it must be an object")
        return {}
    for key in value:
        if key not in kind.keys:
            near = difflib.get_close_matches(key, kind.keys, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(map(repr, kind.keys))}"
            errors.append(f"has the unknown key {key!r}; {hint}")
    there = [key for key in kind.keys if key in value]
    given_in_part = any(key in value for key in kind.optional)
    errors += [
        f"has no {key!r}; add it, or remove the entry"
        for key in kind.keys
        if key not in value and (key not in kind.optional or given_in_part)
    ]
    checked = {}
    for key in there:
        with gathered(errors):
            checked[key] = _id(key, value[key]) if key == kind.keys[0] else _value(key, value[key])
    return checked


def _id(key: str, value: Any) -> int | str:
    if isinstance(value, WrittenNumber) and _WHOLE_NUMBER.fullmatch(value):
        return int(value)
    if isinstance(value, str) and value and not isinstance(value, WrittenNumber):
        return text_in(key, value)
    found = str(value) if isinstance(value, WrittenNumber) else "empty" if value == "" else _type(value)
    raise InputError(f"{key!r} is {found}; it must be a text or a whole number of at most 18 digits")


def _value(key: str, value: Any) -> Any:
    """A text, or a number where one may be; turns are checked by who reads them."""
    if key == "conversations":
        return value
    if not isinstance(value, str) or isinstance(value, WrittenNumber) and key not in _MAY_BE_NUMBERS:
        number = " or a number" if key in _MAY_BE_NUMBERS else ""
        raise InputError(f"{key!r} is {_type(value)}; it must be a text{number}")
    if key in ("image_path", "image") and not value.strip():
        raise InputError(f"{key!r} is empty; give the image's path, or remove the entry")
    return text_in(key, value)


def text_in(key: str, text: str) -> str:
    """A text as it is. Raises InputError, naming its key, where it holds half of a character."""
    if HALF_A_CHARACTER.search(text):
        raise InputError(f"{key!r} contains half of a surrogate pair (a broken \\u escape); rewrite that character")
    return text


def _type(value: Any) -> str:
    if isinstance(value, WrittenNumber):
        return "a number"
    if isinstance(value, float):  # JSON has none, Python reads them
        return "NaN or infinite, which JSON has no number for"
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(repr, list(value)[:8]))}" if value else "an empty object"
    return "null" if value is None else json_type(value)

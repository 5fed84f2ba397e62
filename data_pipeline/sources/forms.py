"""What a form of entries is: the settings that every form is given, and the errors they word alike.

A form turns one entry into what `data_pipeline.records.from_json` reads. The forms themselves are `llava`, `sharegpt`,
`openai`, `instructions`, `table`, `vqa`, `knowledge_vqa` and `mpa`; which one a file is in is decided by `detection`.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.records import TEXT_FIELDS, Placed
from data_pipeline.sources import content_keys, json_files
from data_pipeline.sources.containers import Entries
from data_pipeline.values import as_written, json_type, quoted
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.messages import is_empty

ANSWERS = ("majority", "first", "sampled")
"""How the answer to train on is picked where several are given."""


@dataclass(frozen=True)
class Options:
    """How a data set is read.

    Attributes:
      path: the file or folder.
      root: the folder that images are named from, from the root of the disk or in a store.
      root_given: whether a person named it; otherwise it is the folder of the file.
      training: each conversation must end with an answer.
      answer: one of `ANSWERS`.
      seed: of the answers that are sampled.
    """

    path: str
    root: str
    root_given: bool
    training: bool
    answer: str
    seed: int


class Form:
    """Turns entries into messages. Made once for a file, sent to other processes as it is."""

    id_keys: Sequence[str] = ("id",)
    """Where an entry may give its id; the first that is there counts."""

    def __init__(self, entries: Entries, options: Options):
        """
        Raises:
          InputError: the file as a whole is not in this form: a key that no entry has is one error, not one of each.
        """
        self.options = options

    @classmethod
    def expanded(cls, entries: Entries) -> Entries:
        """The entries, one a question, where those of the file hold several."""
        return entries

    conversational = False
    """Whether entries hold turns, beside which other trainers look for more (`content_keys`)."""

    history = False
    """Whether the earlier turns that `history` has are read."""

    asked_in: Sequence[str] = ()
    """Where the question stands in a column, beside which other programs look for choices."""

    images_beside = True
    """Whether images are looked for in `image` and `images` alone; some data sets name theirs in other columns."""

    def __call__(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """The entry as `from_json` reads it, its id left out.

        Raises:
          InputError: with errors that name no place.
        """
        errors = content_keys.unread(entry, self.conversational, history=self.history)
        if self.asked_in:
            errors += content_keys.unread_choices(entry, self.asked_in)
        converted: Mapping[str, Any] | None = None
        with gathered(errors):
            converted = self.convert(entry)
        if converted is not None:
            errors += content_keys.unread_images(entry, shown=_shows_image(converted.get("messages")))
        elif self.images_beside:
            shown = not all(is_empty(entry.get(key)) for key in ("image", "images"))
            errors += content_keys.unread_images(entry, shown=shown)
        if errors:
            raise InputError(errors)
        return converted

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """`__call__` of an entry without columns that cannot be read.

        Raises:
          InputError: with errors that name no place.
        """
        raise NotImplementedError


def _shows_image(messages: Any) -> bool:
    """Whether a conversation, whatever else is wrong with it, has an image in it."""
    contents = (
        [message.get("content") for message in messages if isinstance(message, Mapping)]
        if isinstance(messages, list)
        else []
    )
    parts = [part for content in contents if isinstance(content, list) for part in content]
    return any(isinstance(part, Mapping) and part.get("type") in ("image", "image_url") for part in parts)


def require(entries: Entries, keys: Sequence[str], form: str) -> None:
    """That at least one entry has one of the keys. Entries that are not objects are reported one by one, later.

    Raises:
      InputError: naming the keys that were found instead, and the nearest of them.
    """
    first = None
    for value in entries.objects():
        if any(key in value for key in keys):
            return
        first = value if first is None else first
    if first is not None:
        nearest = difflib.get_close_matches(keys[0], [key for key in first if isinstance(key, str)], n=1)
        raise InputError(
            f"{entries.path}: no entry has {' or '.join(map(repr, keys))}, so it is not in the format {form!r}; "
            f"the first entry has {keys_of(first)}" + (f". Is {nearest[0]!r} meant?" if nearest else "")
        )


def keys_of(entry: Mapping[str, Any]) -> str:
    return ", ".join(repr(key) for key in list(entry)[:8]) or "no keys"


def other_fields(entry: Mapping[str, Any], errors: list[str], *, compared: bool) -> dict[str, Any]:
    """The fields of a record besides its messages, as far as an entry of another form has them.

    Other programs may use these names for something else, so what is not of the record's type is passed over. In
    cells that hold texts only, lists and objects are JSON.

    Args:
      errors: takes a line where `answers` cannot be read and `compared`.
      compared: answers are learned or compared with here; else a conversation has its own.
    """
    fields = {name: entry[name] for name in TEXT_FIELDS if isinstance(entry.get(name), str) and entry[name]}
    answers, provenance = (json_files.from_cell(entry.get(name)) for name in ("answers", "provenance"))
    if isinstance(answers, list):
        answers = list(map(as_written, answers))
    if isinstance(answers, list) and answers and all(isinstance(answer, str) for answer in answers):
        fields["answers"] = answers
    elif compared and not is_empty(answers):
        errors.append(_unread_answers(answers))
    if isinstance(provenance, Mapping):
        fields["provenance"] = dict(provenance)
    return fields


def _unread_answers(answers: Any) -> str:
    if isinstance(answers, str):
        return (
            f"'answers' is the text {quoted(answers)}, which is no list in JSON; it must be a list of texts, as a "
            'cell ["green", "lime"]'
        )
    wrong = next((one for one in answers if not isinstance(one, str)), None) if isinstance(answers, list) else None
    found = f"a list with {json_type(wrong)} in it" if isinstance(answers, list) else json_type(answers)
    return f"'answers' must be a list of texts, and is {found}"


def text_of(entry: Mapping[str, Any], key: str, name: str, errors: list[str]) -> str:
    """A text that must be there and not be blank, without the blanks around it; else an error and ""."""
    value = as_written(entry.get(key)) if name == "answer" else entry.get(key)
    if key not in entry or value is None:
        errors.append(f"has no {key!r}; give the {name}")
    elif not isinstance(value, str):
        errors.append(f"the {name} ({key!r}) is {json_type(value)}; it must be a text")
    elif not value.strip():
        errors.append(f"the {name} is empty; write it or remove the entry")
    else:
        return value.strip()
    return ""


def question_and_answer(question: str, images: Sequence[str | bytes], answer: str | None) -> list[dict[str, Any]]:
    """The messages of one question about the images before it."""
    content: str | list[dict[str, Any]] = question
    if images:
        content = [
            *(Placed({"type": "image", "image": image}) for image in images),
            Placed({"type": "text", "text": question}),
        ]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    return messages


def pick_answer(answers: Sequence[str], options: Options, identifier: str) -> str:
    """The answer to train on. Blank ones do not count; of answers given equally often, the first.

    A sampled answer depends on the seed and the id alone, so it is the same in every process and in every order.

    Raises:
      InputError: every answer is blank.
    """
    candidates = [answer.strip() for answer in answers if answer.strip()]
    if not candidates:
        raise InputError("every answer is empty, so there is nothing to learn; write one or remove the entry")
    if options.answer == "first":
        return candidates[0]
    if options.answer == "sampled":
        digest = hashlib.sha256(f"{options.seed}:{identifier}".encode(errors="backslashreplace")).digest()
        return candidates[int.from_bytes(digest[:8], "big") % len(candidates)]
    return Counter(candidates).most_common(1)[0][0]  # equal counts stay in the order they were first met


class ImageFolders:
    """Where the images of a data set lie below the image root: looked up once a folder, not once an image."""

    def __init__(self, root: str):
        self._root = root
        self._there: dict[str, bool] = {}

    def path_of(self, name: str, *folders: str) -> str:
        """The name in the first of the folders that exists, relative to the root; in the root if none does."""
        for folder in folders:
            if folder not in self._there:
                self._there[folder] = locations.is_folder(locations.join(self._root, folder))
            if self._there[folder]:
                return f"{folder}/{name}"
        return name

"""Turns as the conversation forms write them, and the images that stand beside them, brought into messages.

`conversations` of `from` and `value`, `messages` of `role` and `content`, ms-swift's `conversation` of `human` and
`assistant`: a turn becomes a message with a role that is known and all its other keys, which `data_pipeline.records`
reads or refuses. Images of a list take the places of `<image>` marks, or of parts that name none, in order.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_pipeline.marks import LEAVE_OUT
from data_pipeline.records import Placed, plain_part
from data_pipeline.sources.json_files import from_cell
from data_pipeline.values import as_written, json_type, quoted
from vlm_jax.processing.messages import TOOL_ROLES, address_of, is_blank, is_empty, tool_keys, unread_part_keys

MARK = "<image>"
ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "system": "system",
}
"""Speakers as they are written."""

_SPEAKER, _WORDS = ("from", "role"), ("value", "content")
_SYSTEM = ("system", "system_prompt")
_ADDRESSES = ("image", "image_url", "path", "url", "value")
"""Where a part may say which image it is; of those of another type it is refused by name, not taken for a place."""


def read_turns(turns: Any, key: str, errors: list[str]) -> list[dict[str, Any]]:
    """The messages of a list of turns, as far as they can be read."""
    if not isinstance(turns, list) or not turns:
        errors.append(f"{key!r} must be a list of at least one turn")
        return []
    messages = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, Mapping):
            errors.append(f"turn {number} is {json_type(turn)} where an object is expected")
            continue
        if pair := _as_pair(turn):
            messages += pair
            continue
        speaker, content = (_first_value(turn, keys) for keys in (_SPEAKER, _WORDS))
        if twice := _contradictions(turn, speaker, content):
            errors.append(f"turn {number} has {twice}; keep one of them")
            continue
        if speaker in TOOL_ROLES or tool_keys(turn):
            errors.append(f"turn {number} calls a tool or is one's, and tool calls are not supported: {LEAVE_OUT}")
            continue
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        content = as_written(content) if role == "assistant" else content
        if role is None:
            errors.append(f"turn {number} is from {speaker!r}; turns are from {', '.join(map(repr, ROLES))}")
        elif not isinstance(content, (str, list)):
            errors.append(f"turn {number} has {json_type(content)} as its text; it must be a text or a list of parts")
        else:
            others = {name: value for name, value in turn.items() if name not in (*_SPEAKER, *_WORDS)}
            messages.append({**others, "role": role, "content": content})
    return messages


def with_system(entry: Mapping[str, Any], messages: list[dict[str, Any]], errors: list[str]) -> list[dict[str, Any]]:
    """The messages after the system message that a column of its own gives."""
    filled = [key for key in _SYSTEM if not is_blank(entry.get(key))]
    if not filled:
        return messages
    text = entry[filled[0]]
    if not isinstance(text, str):
        errors.append(f"{filled[0]!r} is {json_type(text)}; it must be a text")
        return messages
    if messages and messages[0].get("role") == "system":
        if messages[0].get("content") != text:
            errors.append(f"has a system message and {filled[0]!r} that differs from it; keep one")
        return messages
    return [Placed({"role": "system", "content": text}), *messages]


def images_beside(entry: Mapping[str, Any], keys: Sequence[str], errors: list[str]) -> tuple[str, list[str | bytes]]:
    """The images beside a conversation, and the key they stand under: the first of `keys` where there are none."""
    images = {key: images_under(entry, key, errors) for key in keys}
    filled = [key for key in keys if images[key]]
    if len(filled) > 1 and images[filled[0]] != images[filled[1]]:
        errors.append(f"has images under {' and '.join(map(repr, filled))}; keep one of them")
    return (filled[0], images[filled[0]]) if filled else (next((key for key in keys if key in entry), keys[0]), [])


def images_under(entry: Mapping[str, Any], key: str, errors: list[str]) -> list[str | bytes]:
    """The images of a column: a path or a list of them; nothing, "", [] and [None] are none."""
    value = entry.get(key)
    if is_empty(value):
        return []
    value = from_cell(value)
    if isinstance(value, str) and value.strip()[0] == "[" and value.strip()[-1] == "]":
        errors.append(f"'{key}' is the text {quoted(value)}, a list that is not in JSON; write it as [\"a.png\"]")
        return []
    images = [_address(image) for image in (value if isinstance(value, list) else [value])]
    if not all(isinstance(image, (str, bytes)) and image for image in images):
        errors.append(f"'{key}' must be a path or a list of paths")
        return []
    return images


def fill(
    messages: Sequence[dict[str, Any]], images: Sequence[str | bytes], key: str, errors: list[str]
) -> list[dict[str, Any]]:
    """The messages with their images in place. There must be as many places as images, unless there are errors.

    A part that names an image is that image. Where the images are those that the parts name and those of the places,
    in order, they are the same ones, and none is shown twice.
    """
    if images:
        errors += _no_places(messages)
    shown = [image for message in messages for image in _shown(message["content"])]
    named, places = [image for image in shown if image is not None], shown.count(None)
    listed = list(enumerate(images))
    if named and len(shown) == len(images) and all(a in (None, b) for a, b in zip(shown, images, strict=True)):
        listed = [one for one, image in zip(listed, shown, strict=True) if image is None]
    elif not errors and named and places != len(images):
        errors.append(
            f"its parts name {_count(len(named), 'image')} ({', '.join(map(_image_name, named[:3]))}) and leave "
            f"{_count(places, 'place')} for others, but {_count(len(images), 'image')} "
            f"({', '.join(map(_image_name, images[:3]))}) under '{key}' are not those; give each image once"
        )
    elif not errors and places != len(images):
        errors.append(
            f"{_count(places, f'{MARK} mark')} in the text but {_count(len(images), 'image')} under '{key}'; "
            "there must be one mark for each image"
        )
    if errors:
        return []
    remaining = iter(listed)
    return [
        type(message)({**message, "content": _filled(message["content"], remaining, errors)}) for message in messages
    ]


def places_first(messages: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The messages with places for so many images before the user's first words, if they have none at all.

    TRL and ms-swift put the images of such conversations there.
    """
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None or any(_shown(message["content"]) for message in messages):
        return messages
    content = messages[first]["content"]
    words = [Placed({"type": "text", "text": content})] if isinstance(content, str) else content
    if not isinstance(words, list):
        return messages
    places = [Placed({"type": "image"}) for _ in range(count)]
    return [*messages[:first], {**messages[first], "content": [*places, *words]}, *messages[first + 1 :]]


def content_of(text: str, images: Iterator[str | bytes]) -> str | list[dict[str, Any]]:
    """A turn's text cut at its marks, each replaced by the next image.

    The line break that sets a mark off at the start or the end of a turn belongs to the mark: it is how LLaVA writes
    the image before or after the text. Between texts it is text, and stays.
    """
    if MARK not in text:
        return text
    pieces = text.replace("\r\n", "\n").split(MARK)
    if not pieces[0].strip():
        pieces[0] = ""
        for index in range(1, len(pieces)):  # several marks at the start are set off one by one
            pieces[index] = pieces[index].removeprefix("\n")
            if pieces[index]:
                break
    if not pieces[-1].strip():
        pieces[-1] = ""
        for index in reversed(range(len(pieces) - 1)):
            pieces[index] = pieces[index].removesuffix("\n")
            if pieces[index]:
                break
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(pieces):
        if index:
            parts.append(Placed({"type": "image", "image": next(images)}))
        if piece:
            parts.append(Placed({"type": "text", "text": piece}))
    return parts


def _first_value(turn: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """What stands under the first key that has something; where none has, what is there at all."""
    written = sorted((turn[key] for key in keys if turn.get(key) is not None), key=is_blank)
    return next(iter(written), None)


def _contradictions(turn: Mapping[str, Any], speaker: Any, content: Any) -> str:
    """The keys of one meaning that say different things, as a part of an error."""
    pairs = [
        " and ".join(f"{key!r} {turn[key]!r}" for key in keys)
        for keys, chosen, name in ((_SPEAKER, speaker, _role), (_WORDS, content, lambda words: words))
        if any(not is_blank(turn.get(key)) and name(turn[key]) != name(chosen) for key in keys)
    ]
    return ", ".join(pairs)


def _role(speaker: Any) -> Any:
    return ROLES.get(speaker, speaker) if isinstance(speaker, str) else speaker


def _as_pair(turn: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The two messages of ms-swift's `{"human": …, "assistant": …}`; none of another turn."""
    if any(key in turn for key in (*_SPEAKER, *_WORDS)) or "assistant" not in turn:
        return []
    user_key = "human" if "human" in turn else "user"
    others = {key: value for key, value in turn.items() if key not in (user_key, "assistant")}
    return [
        {"role": "user", "content": turn.get(user_key)},
        {**others, "role": "assistant", "content": as_written(turn["assistant"])},
    ]


def _address(image: Any) -> Any:
    """An image's path or bytes; as `datasets` writes them, they stand in an object."""
    if isinstance(image, Mapping) and image.keys() <= {"bytes", "path"}:
        return image.get("bytes") or image.get("path")
    return image


def _is_image(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url")


def _is_place(part: Any) -> bool:
    """Whether a part says that an image stands here without saying which, under whatever key."""
    if not _is_image(part):
        return False
    link = part.get("image_url")
    if isinstance(link, Mapping):
        part = {**part, "image_url": {key: value for key, value in link.items() if key != "detail"}}
    return all(is_empty(part.get(key)) for key in _ADDRESSES)


def _shown(content: Any) -> list[Any]:
    """The images of a message in order: those that parts name, and None where one of the list is to stand."""
    if isinstance(content, str):
        return [None] * content.count(MARK)
    images = [part for part in content if _is_image(part)] if isinstance(content, list) else []
    return [None if _is_place(part) else _address(address_of(plain_part(part))) or "" for part in images]


def _no_places(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Errors of parts that would be taken for a place, or for none, beside a list of images."""
    errors = []
    for number, message in enumerate(messages, 0 if messages and isinstance(messages[0], Placed) else 1):
        content = message["content"]
        parts = [part for part in content if not isinstance(part, Placed)] if isinstance(content, list) else []
        for place, part in enumerate(parts, 1):
            name = f"message {number}, part {place}"
            if _is_image(part) and not _is_place(part) and is_empty(address_of(plain_part(part))):
                errors += [f"{name} {reason}" for reason in unread_part_keys(plain_part(part))]
            words = plain_part(part).get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
            if isinstance(words, str) and MARK in words:
                errors.append(
                    f"{name} contains '{MARK}', which is read where a text is the whole content; among parts "
                    '{"type": "image"} says where an image stands'
                )
    return errors


def _image_name(image: Any) -> str:
    return quoted(image) if isinstance(image, str) else "an embedded one"


def _filled(content: Any, images: Iterator[tuple[int, str | bytes]], errors: list[str]) -> Any:
    if isinstance(content, str):
        return content_of(content, (image for _, image in images))
    if not isinstance(content, list):
        return content
    if all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        texts = [plain_part(part) for part in content]
        if all(isinstance(part.get("text"), str) and _is_plain(part) for part in texts):
            return "".join(part["text"] for part in texts)
    return [_with_image(part, *next(images), errors) if _is_place(part) else part for part in content]


def _is_plain(part: Mapping[str, Any]) -> bool:
    return all(key in ("type", "text") or is_empty(value) for key, value in part.items())


def _with_image(part: Mapping[str, Any], number: int, image: str | bytes, errors: list[str]) -> dict[str, Any]:
    index = part.get("index")  # which image of the list, as some data sets of the hub have it
    if index is not None and index != number:
        errors.append(
            f"a place for an image has the index {index!r} where image {number} of the list comes next; list the "
            "images in the order they are shown"
        )
    others = {key: value for key, value in part.items() if key not in ("type", *_ADDRESSES)}
    link = part.get("image_url")
    if isinstance(link, Mapping) and not is_empty(link.get("detail")):  # refused by name as one of the part
        others["detail"] = link["detail"]
    filled = {**others, "type": "image", "image": image}
    return Placed(filled) if isinstance(part, Placed) else filled


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

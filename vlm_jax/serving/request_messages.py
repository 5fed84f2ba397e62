"""The messages of a request, read: whatever a message or a part of it holds is honoured, or refused by name.

Images are data URIs: no address is fetched and no file is opened, whatever a request names. They become bytes here,
which errors call by their place; whether they are images, and whether a conversation can be rendered, is for who has
the model.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing import chat
from vlm_jax.processing.images import NamedBytes
from vlm_jax.processing.messages import address_of, is_empty
from vlm_jax.serving.refusals import Refused

ROLES = ("system", "developer", "user", "assistant")
"""`developer` is OpenAI's newer name of `system`."""
_NOTES = ("id", "index", "cache_control")
"""Keys of a part that say nothing that a model is shown."""
_PART_KEYS = {
    "text": ("type", "text", *_NOTES),
    "image_url": ("type", "image_url", "detail", *_NOTES),
    "image": ("type", "image", "detail", *_NOTES),
}
_FORM = "data:image/png;base64,…"


def read_messages(messages: Sequence[Any]) -> list[chat.Message]:
    """As `vlm_jax` takes them; images are `NamedBytes`. Raises Refused with the first that cannot be."""
    found = [_message(message, f"message {number}") for number, message in enumerate(messages, start=1)]
    try:
        chat.check_messages(found)
    except InputError as error:
        raise _refused("; ".join(error.lines[:10])) from None
    return found


def _refused(message: str, code: str = "invalid_value") -> Refused:
    return Refused(message, param="messages", code=code)


def _message(message: Any, where: str) -> chat.Message:
    if not isinstance(message, dict):
        raise _refused(f'{where} is not an object like {{"role": "user", "content": "Hello"}}', "invalid_type")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise _refused(f"{where} has the role {_shown(role)}; known: {', '.join(ROLES)}")
    for key, value in message.items():
        if key not in ("role", "content") and not is_empty(value):
            raise _refused(f"{where} has the key {_shown(key)}, which is not supported; leave it out", "unknown_key")
    if content is None and role == "assistant" and "content" in message:  # an answer of no words
        content = ""
    if not isinstance(content, str | list):
        raise _refused(f"{where}: content is neither a text nor a list of parts", "invalid_type")
    if isinstance(content, list):
        content = _parts(content, where)
    return {"role": "system" if role == "developer" else role, "content": content}


def _parts(parts: Sequence[Any], where: str) -> list[dict[str, Any]]:
    found, images = [], 0
    for number, part in enumerate(parts, start=1):
        place = f"part {number} of {where}"
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in _PART_KEYS:
            raise _refused(f"{place} is of the type {_shown(kind)}; known: text, image_url")
        if kind == "text":
            _check_keys(part, _PART_KEYS[kind], place)
            if not isinstance(part.get("text"), str):
                raise _refused(f"{place} has no text", "invalid_type")
            found.append({"type": "text", "text": part["text"]})
        else:
            images += 1
            found.append({"type": "image", "image": _image(part, f"image {images} of {where}")})
    return found


def _check_keys(part: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    for key, value in part.items():
        if key not in known and not is_empty(value):
            raise _refused(f"{place} has the key {_shown(key)}, which is not supported; leave it out", "unknown_key")


def _image(part: dict[str, Any], name: str) -> NamedBytes:
    _check_keys(part, _PART_KEYS[part["type"]], name)
    link = part.get("image_url")
    of_link = link if isinstance(link, dict) else {}
    _check_keys(of_link, ("url", "detail"), name)
    for detail in (part.get("detail"), of_link.get("detail")):
        if not is_empty(detail) and detail != "auto":
            raise _refused(
                f"{name} asks for the detail {_shown(detail)}, which is not supported: images are seen as the model "
                'was loaded to see them; leave it out, or send "auto"'
            )
    address = address_of(part)
    if is_empty(address):
        raise _refused(f'{name} has no url; send "image_url": {{"url": "{_FORM}"}}', "invalid_image_url")
    if not isinstance(address, str) or address[:5].lower() != "data:":
        raise _refused(
            f"{name} is no data URI; addresses are not fetched and files not opened: send it as {_FORM}",
            "invalid_image_url",
        )
    return NamedBytes.called(name, _decoded(address, name))


def _decoded(uri: str, name: str) -> bytes:
    head, comma, payload = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _refused(f"{name}: a data URI must read {_FORM}", "invalid_image_url")
    try:
        data = base64.b64decode("".join(payload.split()), validate=True)
    except (binascii.Error, ValueError) as error:  # ValueError: letters that are not ASCII
        raise _refused(f"{name}: what follows base64, is not base64 ({error})", "invalid_image_url") from None
    if not data:
        raise _refused(f"{name} is empty: nothing follows base64,", "invalid_image_url")
    return data


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}…"

"""An object out of what a model wrote: JSON, fenced or not, held to a pydantic model.

Models fence their JSON, put a sentence before it, and break off. What can be read is read, what is not the object that
was asked for is refused; nothing is mended by guessing.
"""

import json
import re
from typing import Any, TypeVar

import pydantic

from data_pipeline.teachers.request import CallFailed

Form = TypeVar("Form", bound=pydantic.BaseModel)
_FENCED = re.compile(r"```(?:json|JSON)?[ \t]*\n(.*?)```", re.DOTALL)


def parsed(text: str, form: type[Form]) -> Form:
    """The object in a model's answer.

    Raises:
      CallFailed: there is no JSON in it, or it has not this form.
    """
    try:
        return form.model_validate(_json(text))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the object"
        raise CallFailed("not what was asked for", f"{place}: {first['msg']}") from None


def schema(form: type[pydantic.BaseModel]) -> dict[str, Any]:
    """The JSON schema of a form, its references written in place: batch importers refuse `$defs`.

    Raises:
      ValueError: a form that contains itself.
    """
    whole = form.model_json_schema()
    return _inlined(whole, whole.pop("$defs", {}), ())


def _inlined(node: Any, definitions: dict[str, Any], above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions, above) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        if name in above:
            raise ValueError(f"the form {name} contains itself")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inlined(definitions[name], definitions, (*above, name)), **beside}
    # `properties` has names of fields as keys, one of which may well be "title".
    return {
        key: {name: _inlined(field, definitions, above) for name, field in value.items()}
        if key == "properties"
        else _inlined(value, definitions, above)
        for key, value in node.items()
        if key != "title"
    }


def _json(text: str) -> Any:
    fenced = _FENCED.findall(text)
    candidates = [text.strip(), *(block.strip() for block in fenced)]
    start = min((place for mark in "{[" if (place := text.find(mark)) >= 0), default=-1)
    if start >= 0:
        candidates.append(text[start : max(text.rfind("}"), text.rfind("]")) + 1])
    for candidate in candidates:
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    raise CallFailed("not what was asked for", f"no JSON in {text[:80]!r}")

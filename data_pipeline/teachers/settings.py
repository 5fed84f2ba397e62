"""The settings of a teacher, checked, and the teacher that they make.

    config.teachers.text = {"kind": "vertex", "model": "gemini-3.5-flash", "project": "my-project"}

Keys of `kind`, their defaults and what they mean stand in SETTINGS; what is not there is refused.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from data_pipeline.corpus.drawn import faults
from data_pipeline.corpus.drawn.catalogue import CATALOGUE
from data_pipeline.teachers.request import Kind
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.errors import InputError

_SENT: dict[str, Any] = {
    "model": "",  # as the server calls it
    "endpoint": "",  # address of the server; "" for the kind's own
    "at_once": 32,  # the most calls on their way; fewer where the server says that it is too much
    "requests_per_minute": 0,  # of the account; 0: no limit
    "tokens_per_minute": 0,  # likewise
    "timeout_s": 180.0,  # of one call
    "temperature": 1.0,  # 0: the likeliest answer
    "max_output_tokens": 4096,  # of an answer
    "seed": 0,  # of what is drawn: with it, each request and sample has a seed of its own
}
SETTINGS: dict[str, dict[str, Any]] = {
    "vertex": {
        **_SENT,
        "project": "",  # "" for the one of the account's own settings
        "api_key_env": "",  # environment variable that has an access token; "" for application default credentials
        "location": "global",
        "thinking_level": "",  # "" for the model's own | MINIMAL | LOW | MEDIUM | HIGH, as far as the model knows it
        "aspect_ratio": "1:1",  # of images
        "image_size": "1K",  # 1K | 2K | 4K, as far as the model knows it
        "dimensions": 768,  # of embeddings
        "batch_folder": "",  # gs://bucket/folder: texts and images come by batch jobs, at half the price, within a day
        "batch_poll_s": 60.0,  # between two looks at a job
    },
    "openai_compatible": {
        **_SENT,
        "api_key_env": "",  # name of the environment variable that has the key
        "structured": "json_schema",  # json_schema | json_object | none: how the server is told which object is wanted
        "extra": {},  # further fields of every request, such as {"chat_template_kwargs": {"enable_thinking": False}}
    },
    "local": {
        "model": "",  # a folder that vlm_jax.load opens; for embeddings also a CLIP or SigLIP
        "rows": 8,  # requests answered together
        "dtype": "auto",  # of its weights, as vlm_jax.load takes it
        "quantise": "none",  # its weights, as vlm_jax.load takes it
        "min_visual_tokens": 0,  # an image is scaled so that it takes between these many; 0: as its folder says
        "max_visual_tokens": 0,  # likewise
        "visual_tokens": 1.0,  # of them, the share or number that the decoder sees, as of a training's model
        "token_reduction": "resize",  # how, as of a training's model
        "token_reduction_layer": 0,  # likewise
        "temperature": 1.0,
        "max_output_tokens": 1024,
        "seed": 0,
    },
    "drawn": {
        "seed": 0,
        "side": 112,  # pixels of an image
        "pieces": 0,  # an article tells of so many, with facts of their own; 0: of the object as the catalogue has it
        "faults": {},  # {one of data_pipeline.corpus.drawn.faults.FAULTS: share of the answers that have it}
    },
}
"""By kind: every setting with its default."""


_NOT_EXTRA = {
    **{name: f"which is the setting {name}" for name in ("seed", "temperature", "model")},
    "max_tokens": "which is the setting max_output_tokens",
    "response_format": "which the setting structured decides",
    **dict.fromkeys(("messages", "input", "n", "stream"), "which is the request's"),
}
"""What `extra` may not hold, and why."""
_LEAST = dict.fromkeys(("at_once", "max_output_tokens", "rows", "dimensions", "side"), 1) | dict.fromkeys(
    ("requests_per_minute", "tokens_per_minute", "temperature", "batch_poll_s"), 0
)


def checked(settings: Mapping[str, Any], where: str, *, wanted: Kind = "text") -> dict[str, Any]:
    """The settings of a teacher with defaults filled in.

    Args:
      where: as messages call them, such as `config.teachers.text`.
      wanted: what it is asked for.

    Raises:
      InputError: with every error: a kind or setting that is not known, or of another type.
    """
    kind = settings.get("kind")
    if not isinstance(kind, str) or kind not in SETTINGS:
        raise InputError(f"{where}.kind is {kind!r}; known are {', '.join(SETTINGS)}")
    known, errors = SETTINGS[kind], []
    for key, value in settings.items():
        if key == "kind":
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            errors.append(f"{where}: no setting {key!r} of kind {kind}; {advice}")
        elif not _same_type(value, known[key]):
            errors.append(f"{where}.{key} is {value!r}; wanted as {known[key]!r}")
        elif key == "timeout_s" and not value > 0:
            errors.append(f"{where}.timeout_s is {value!r}; wanted seconds")
        elif key in _LEAST and not value >= _LEAST[key]:  # so that NaN is refused too
            errors.append(f"{where}.{key} is {value!r}; wanted at least {_LEAST[key]}")
        elif key == "extra":
            errors += [
                f"{where}.extra has {name!r}, {advice}; leave it out"
                for name, advice in _NOT_EXTRA.items()
                if name in value
            ]
        elif key == "pieces" and not 0 <= value <= len(CATALOGUE):
            errors.append(f"{where}.pieces is {value!r}; wanted 0 to {len(CATALOGUE)}, as there are objects")
        elif key == "faults":
            errors += faults.errors(value, where)
    if kind == "local":
        errors += _tokens_seen({**known, **settings}, where)
    if "model" in known and not settings.get("model"):
        errors.append(f"{where}.model is not set; name the model that is asked")
    if kind == "openai_compatible" and not settings.get("endpoint"):
        errors.append(f"{where}.endpoint is not set; name the address of the server, such as http://127.0.0.1:8000/v1")
    if wanted not in _class_of(kind).takes:
        errors.append(f"{where}: a teacher of kind {kind} has no {wanted} to give; take another kind")
    if errors:
        raise InputError(errors)
    return {"kind": kind, **known, **settings}


def _tokens_seen(settings: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with how much of an image a local model sees."""
    bounds = [settings[name] for name in ("min_visual_tokens", "max_visual_tokens")]
    if not all(isinstance(bound, int) for bound in bounds):
        return []  # has its own line
    if any(bounds) and not 0 < bounds[0] <= bounds[1]:
        return [
            f"{where}.min_visual_tokens and max_visual_tokens are {bounds[0]} and {bounds[1]}; set both, or neither"
        ]
    if any(bounds) and settings["visual_tokens"] != 1.0:
        return [f"{where}: visual_tokens does not go with min_visual_tokens and max_visual_tokens; set one of them"]
    return []


def wanted_of(name: str) -> Kind:
    """What the teacher of this name, a key of `config.teachers`, is asked for."""
    return "image" if name == "image" else "embedding" if name == "embedding" else "text"


def in_text(text: str, where: str) -> dict[str, Any]:
    """The settings in `key=value,key=value`, as a flag has them; values as JSON where they are some. Or one object of
    JSON, for values with commas.

    Raises:
      InputError: a part without `=`, a key twice, or no object.
    """
    settings: dict[str, Any] = {}
    if text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(f"{where}: is no object of JSON ({error}); wanted {{'kind': …}}") from None
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or name in settings:
            wrong = "is there twice" if equals else "has no value"
            raise InputError(f"{where}: {name!r} {wrong}; wanted kind=…,model=…")
        try:
            settings[name] = json.loads(value)
        except ValueError:
            settings[name] = value
    return settings


def as_text(settings: Mapping[str, Any]) -> str:
    """What `in_text` reads back."""
    parts = {name: value if isinstance(value, str) else _json(value) for name, value in settings.items()}
    text = ",".join(f"{name}={value}" for name, value in parts.items())
    try:
        same = in_text(text, "") == settings
    except InputError:
        same = False
    return text if same else _json(settings)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def open_teacher(settings: Mapping[str, Any], where: str, *, wanted: Kind) -> Teacher:
    """The teacher that settings name. Nothing is sent, and no client is loaded that is not needed.

    Raises:
      InputError: settings that cannot be; a package or a key is missing; this kind does not answer what is wanted.
    """
    values = checked(settings, where, wanted=wanted)
    return _class_of(values.pop("kind"))(**values)


def _class_of(kind: str) -> type[Teacher]:
    if kind == "vertex":
        from data_pipeline.teachers.vertex import Vertex as named
    elif kind == "openai_compatible":
        from data_pipeline.teachers.openai_compatible import OpenAICompatible as named
    elif kind == "local":
        from data_pipeline.teachers.local import Local as named
    else:
        from data_pipeline.teachers.drawn import Drawn as named
    return named


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    if isinstance(default, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, type(default))

"""Groups of settings that a config file starts from: changed by what it names, and looked through for other types.

What a corpus and an alignment have in common: teachers, whose settings depend on their kind, and prices by model.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from data_pipeline.teachers import settings as teacher_settings
from vlm_jax.errors import InputError

TEACHERS = "config.teachers"


def changed(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """The settings with changes: a mapping among them changes what it names and keeps the rest of its group.

    Raises:
      InputError: a change of a setting that is not there, or into something of another type: all together.
    """
    errors: list[str] = []
    _change(config, changes, "config", errors)
    if errors:
        raise InputError(errors)
    return config


def _change(config: ConfigDict, changes: Mapping[str, Any], where: str, errors: list[str]) -> None:
    for key, value in changes.items():
        if key not in config:
            errors.append(f"{where}.{key}: no such setting; known are {', '.join(config)}")
            continue
        group = isinstance(config[key], ConfigDict)
        if group != isinstance(value, Mapping | ConfigDict):
            wanted = "a mapping of settings" if group else f"as {config[key]!r}"
            errors.append(f"{where}.{key} is {value!r}; wanted {wanted}")
        elif where == TEACHERS:  # with every setting of its kind, so that each can be looked up and set
            kind = value.get("kind")
            known = teacher_settings.SETTINGS.get(kind, {}) if isinstance(kind, str) else {}
            config[key] = ConfigDict({**({"kind": kind} if value else {}), **known, **value}, allow_dotted_keys=True)
        elif where == "config" and key == "prices":
            config[key] = ConfigDict(value, allow_dotted_keys=True)  # as names of models have them
        elif isinstance(config[key], ConfigDict):
            _change(config[key], value, f"{where}.{key}", errors)
        else:
            try:
                config[key] = value
            except TypeError:
                wanted = "texts, as ('one', 'two')" if isinstance(config[key], tuple) else f"as {config[key]!r}"
                errors.append(f"{where}.{key} is {value!r}; wanted {wanted}")


def of_other_types(settings: Mapping[str, Any], like: Mapping[str, Any], where: str = "config") -> list[str]:
    """Settings of another type than their defaults, where a config lets them be: True for a number, numbers in a list
    of texts."""
    errors = []
    for key, default in like.items():
        value, name = settings[key], f"{where}.{key}"
        if isinstance(default, tuple) and not all(isinstance(one, str) for one in value):
            errors.append(f"{name} is {value!r}; wanted texts")
        elif isinstance(default, int | float) and isinstance(value, bool) != isinstance(default, bool):
            errors.append(f"{name} is {value!r}; wanted as {default!r}")
        elif isinstance(default, dict) and default and name != TEACHERS:
            errors += of_other_types(value, default, name)
    return errors

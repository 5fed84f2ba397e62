"""A config file: Python that makes a ConfigDict, and overrides of its settings from the command line.

ml_collections' own config flag is not used: it stops at the first wrong override, with a traceback, and knows no
nearest key. Its ConfigDict, with its types and its locking, is.
"""

import ast
import contextlib
import difflib
import inspect
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from setting_words import nearest
from teacher_kinds import take_kinds
from vlm_jax.errors import InputError
from vlm_jax.training.config import named_now

_FREE = ("data.columns", "data.mixture")
"""Groups of settings whose keys are for the person to choose."""
_FREE_TEXTS = ("data.columns",)
"""Those of them that hold texts alone, so that `--config.data.columns.image=img_path` can only mean one thing."""
_TRUE = ("true", "t", "yes", "1")
_FALSE = ("false", "f", "no", "0")
_ALTERNATIVES = (("train.steps", "train.epochs"),)
"""Settings, below any group, of which one counts: the one that is not 0. Where the command line gives one, it takes the
place of another that the config file sets."""


def load_config(name: str, overrides: list[tuple[str, str | None]] | None = None) -> ConfigDict:
    """Runs `get_config` of `FILE.py` or `FILE.py:ARGUMENT`, applies overrides in order, and locks the result.

    Raises:
      InputError: the file cannot be used, or overrides name unknown settings or values of a wrong type (all listed).
    """
    path, argument = file_and_argument(name)
    if not path.is_file():
        raise InputError(_no_such_file(path))
    try:
        # Compiled here rather than imported: the import system's cache takes a file edited twice in a second for the
        # same. Registered, because dataclasses and pickle look their module up.
        module = sys.modules["config_file"] = types.ModuleType("config_file")
        module.__file__ = str(path)
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
        get_config = getattr(module, "get_config", None)
        if not callable(get_config):
            raise InputError(f"{path}: defines no get_config() that returns the settings")
        arguments = [] if argument is None else [argument]
        _check_arguments(path, get_config, arguments)
        config = get_config(*arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        now = named_now(_message(error).strip("'")) if isinstance(error, AttributeError | KeyError) else ""
        raise InputError(f"{_place(path, error)}: {type(error).__name__}: {_message(error)}{now}") from error
    if isinstance(config, dict):
        config = ConfigDict(config)
    if not isinstance(config, ConfigDict):
        raise InputError(f"{path}: get_config() returned {type(config).__name__}, where a ConfigDict is needed")
    config.lock()
    override(config, overrides or [])
    return config


def file_and_argument(name: str) -> tuple[Path, str | None]:
    """The file and the argument of `FILE.py:ARGUMENT`."""
    match = re.fullmatch(r"(.*?\.py)(?::(.*))?", name, flags=re.DOTALL)
    return (Path(match[1]), match[2]) if match else (Path(name), None)


def _check_arguments(path: Path, get_config: Callable[..., Any], arguments: list[str]) -> None:
    try:
        inspect.signature(get_config).bind(*arguments)
    except TypeError as error:
        if arguments:
            raise InputError(f"{path}: get_config() takes no argument, and {arguments[0]!r} was given") from error
        raise InputError(f"{path}: get_config() needs an argument: --config={path}:ARGUMENT") from error


def _place(path: Path, error: BaseException) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines = [error.lineno]
    return f"{path}, line {lines[-1]}" if lines else str(path)


def _message(error: BaseException) -> str:
    # str() of a SyntaxError repeats the place, that of a KeyError is the quoted key, which ConfigDict makes a sentence.
    text = str(error.msg if isinstance(error, SyntaxError) else error.args[0] if len(error.args) == 1 else error)
    # ml_collections' AttributeError quotes a KeyError, which quotes the key.
    for _ in range(2):
        with contextlib.suppress(SyntaxError, ValueError):
            text = str(ast.literal_eval(text)) if text[:1] in ("'", '"') else text
    return " ".join(text.split())


def _no_such_file(path: Path) -> str:
    if path.is_dir():
        return f"{path}: is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"{path}: no such config file; there is no folder {path.parent}"
    names = sorted(file.name for file in path.parent.glob("*.py"))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:5]
    few = "like it are" if len(near) < len(names) else "it has"
    return f"{path}: no such config file" + (f"; in {path.parent} {few} {', '.join(near)}" if near else "")


# Overrides


def settings_of(config: ConfigDict, prefix: str = "config") -> Iterator[tuple[str, ConfigDict, str]]:
    """(dotted key, the group that holds it, its name in the group) of every setting that is not itself a group."""
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from settings_of(config[name], f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", config, name


def override(config: ConfigDict, overrides: list[tuple[str, str | None]]) -> None:
    take_kinds(config, overrides)
    settings = {key: (group, name) for key, group, name in settings_of(config)}
    # None is a value where the file itself says so, by None or by a placeholder, which keeps its type.
    optional = {key for key, (group, name) in settings.items() if group[name] is None}
    errors = []
    for key, text in overrides:
        key = f"config.{key}"
        if key in settings:
            group, name = settings[key]
            try:
                group[name] = _value(group, name, text, key in optional)
            except ValueError as error:
                shown = "" if text is None else f", not {text!r}"
                errors.append(f"--{key}: needs {error}{shown}")
        elif (place := _free_mapping(config, key)) is not None:
            mapping, name = place
            value = {name: text} if name else _literal(text or "")
            if isinstance(value, dict) and (name or all(isinstance(one, str) for one in value)):
                with mapping.unlocked():
                    if not name:  # a whole mapping stands for the one before
                        for old in list(mapping):
                            del mapping[old]
                    mapping.update(value)
            else:
                errors.append(f"--{key}: needs a mapping such as {{'image': 'img_path'}}, not {text!r}")
        elif members := [other for other in settings if other.startswith(f"{key}.")]:
            errors.append(f"--{key}: is a group of settings; set one of them: {', '.join(members)}")
        else:
            near = nearest(key, settings)
            errors.append(f"--{key}: no such setting" + (f"; did you mean {near}?" if near else ""))
    for names in _ALTERNATIVES:
        errors += _choose_alternative(names, settings, {f"config.{key}" for key, _ in overrides})
    if errors:
        raise InputError(errors)


def _choose_alternative(
    names: tuple[str, ...], settings: dict[str, tuple[ConfigDict, str]], overridden: set[str]
) -> list[str]:
    """Sets the alternatives of what the command line gives to 0; an error where it gives several of one group."""
    errors = []
    for above in sorted({key.removesuffix(name) for key in settings for name in names if key.endswith(f".{name}")}):
        alternatives = {key: settings[key] for key in (above + name for name in names) if key in settings}
        chosen = [key for key, (group, name) in alternatives.items() if key in overridden and group[name]]
        if len(chosen) > 1:
            values = " and ".join(f"--{key}={alternatives[key][0][alternatives[key][1]]}" for key in chosen)
            errors.append(f"{values}: only one of them counts; leave one out")
        elif chosen:
            for group, name in (place for key, place in alternatives.items() if key not in chosen):
                group[name] = 0
    return errors


def _free_mapping(config: ConfigDict, key: str) -> tuple[ConfigDict, str] | None:
    """A group whose keys are for the person to choose, and the one that `key` names in it ("": the whole of it)."""
    for free in _FREE:
        if key == f"config.{free}" or (free in _FREE_TEXTS and key.startswith(f"config.{free}.")):
            group = config
            for name in free.split("."):
                group = group.get(name) if isinstance(group, ConfigDict) else None
            return (group, key.removeprefix(f"config.{free}").removeprefix(".")) if group is not None else None
    return None


def _value(group: ConfigDict, name: str, text: str | None, optional: bool) -> Any:
    """The text as the setting's type. The message of the ValueError is what is needed instead."""
    kind, default = group.get_type(name), group[name]
    if text is None:
        if kind is bool:
            return True
        raise ValueError("a value: --config.KEY=VALUE")
    if optional and text.lower() == "none":
        return None
    or_none = " or none" if optional else ""
    if issubclass(kind, (tuple, list)):
        return _sequence(kind, default or (), text, or_none)
    if kind in (type(None), object):
        return _literal(text)
    return _scalar(kind, text, or_none)


def _scalar(kind: type, text: str, or_none: str = "") -> Any:
    if kind is bool:
        if text.lower() not in _TRUE + _FALSE:
            raise ValueError("true or false" + or_none)
        return text.lower() in _TRUE
    if kind is str:
        return text
    if kind not in (int, float):
        raise ValueError(f"a {kind.__name__}, which is set in the config file only")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(("a whole number" if kind is int else "a number") + f" ({kind.__name__}){or_none}") from None


def _sequence(kind: type, default: Any, text: str, or_none: str) -> Any:
    """`(1, 2)`, `1,2` and `a,b` alike; the items take the type of the default's, where those are of one type."""
    value = _literal(text)
    if isinstance(value, str):
        value = [_literal(item.strip()) for item in text.split(",")] if text else []
    items = value if isinstance(value, (tuple, list)) else [value]
    types = {type(item) for item in default}
    if len(types) == 1 and (item_type := types.pop()) in (bool, int, float, str):
        try:
            items = [_scalar(item_type, str(item)) for item in items]
        except ValueError as error:
            raise ValueError(f"a {kind.__name__} whose items are {item_type.__name__}{or_none}") from error
    return kind(items)


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        text = text.capitalize()
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text

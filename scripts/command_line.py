"""What every script shares: flags, the config file and its overrides, exit status, and one-line reasons.

A script defines its own absl flags and ends with `command_line.run(main)`, or `command_line.run(main, config=True)`
to be given the locked ConfigDict of `--config=FILE.py[:ARGUMENT]` with every `--config.a.b=value` applied.

Exit status: 0 done; 2 a missing or unknown flag; 130 interrupted; 1 anything else. Each fault is one line on standard
error; a traceback is printed with --debug only. What a script does is left to the script: nothing here loads JAX.

ml_collections' own config flag is not used: it stops at the first wrong override, with a traceback, and knows no
nearest key. Its ConfigDict, with its types and its locking, is.
"""

import interrupts

import ast
import difflib
import errno
import inspect
import os
import re
import select
import shlex
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from setting_comments import comments_of
from setting_words import nearest
from vlm_jax import terminal
from vlm_jax.errors import InputError
from vlm_jax.fault_list import printable
from vlm_jax.parallel.starting import tpu_is_absent

FLAGS = flags.FLAGS

_FREE = ("data.columns", "data.mixture")
"""Groups of settings whose keys are for the person to choose."""
_FREE_TEXTS = ("data.columns",)
"""Those of them that hold texts alone, so that `--config.data.columns.image=img_path` can only mean one thing."""
_TRUE = ("true", "t", "yes", "1")
_FALSE = ("false", "f", "no", "0")
_ALTERNATIVES = (("train.steps", "train.epochs"),)
"""Settings, below any group, of which one counts: the one that is not 0. Where the command line gives one, it takes the
place of another that the config file sets."""
# How absl words the absence of a required flag, which it has no exception of its own for.
_MISSING = "must have a value other than None"


def run(main: Callable[..., Any], *, config: bool = False) -> None:
    """Parses the command line, calls `main()`, or `main(config)` where `config` is true, and exits the process."""
    # Read by libraries when they load; their start-up notes would hide our one line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that PyTorch is absent is no news here
    # Where PyTorch is installed transformers loads it, for seconds and hundreds of megabytes; nothing here uses it.
    sys.modules.setdefault("torch", None)
    if tpu_is_absent():  # in the environment, so that JAX is not loaded for it
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    interrupts.leave(_status(main, config, sys.argv))


def program(name: str) -> str:
    """How another program of this folder is started from here: `.venv/bin/python scripts/chat.py`, to be printed."""
    paths = (sys.executable, Path(__file__).with_name(f"{name}.py"))
    return " ".join(shlex.quote(min(os.path.relpath(path), str(path), key=len)) for path in paths)


def _status(main: Callable[..., Any], config: bool, argv: list[str]) -> int:
    flags.DEFINE_boolean("debug", False, "print the traceback of an error")
    if config:
        flags.DEFINE_string("config", None, "the settings: FILE.py or FILE.py:ARGUMENT", required=True)
    try:
        interrupts.begin()
        if _asks_help(argv):
            _print_help(argv, config)
            sys.stdout.flush()
            return 0
        overrides = _parse_flags(argv, config)
        if config:
            main(load_config(FLAGS.config, overrides))
        else:
            main()
        sys.stdout.flush()
    except _UsageError as error:
        return _fail(f"{error} (--help lists the flags)", status=2)
    except InputError as error:
        return _fail(*printable(error.faults))
    except KeyboardInterrupt:
        return _fail("interrupted", status=interrupts.STATUS)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        return _fail(_os_reason(error))
    except Exception as error:
        return _fail(f"{type(error).__name__}: {error} (unexpected: run again with --debug for the traceback)")
    return 0


def _nobody_reads() -> bool:
    """Whether the reader of our output has gone, as `… | head` does once it has read enough."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not any(happened & (select.POLLERR | select.POLLHUP) for _, happened in output.poll(0)):
        return False
    # What is left in the buffer goes nowhere; the interpreter would complain of it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


class _UsageError(Exception):
    """A missing or unknown flag."""


def _fail(*faults: str, status: int = 1) -> int:
    if FLAGS["debug"].value:
        traceback.print_exc()
    for fault in faults:
        print(f"error: {terminal.line(fault)}", file=sys.stderr)
    return status


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _os_reason(error: OSError) -> str:
    if not error.strerror:
        return f"{type(error).__name__}: {error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}the disk is full; free some room, and give the same command again"
    names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{names}: {error.strerror}" if names else error.strerror


# Flags


def _parse_flags(argv: list[str], config: bool) -> list[tuple[str, str | None]]:
    """Parses absl's flags and returns the overrides of the config: (dotted key, text or None for a bare switch)."""
    try:
        argv = argv[:1] + FLAGS.read_flags_from_files(argv[1:], force_gnu=False)
        overrides, argv = _split_overrides(argv) if config else ([], argv)
        FLAGS.set_gnu_getopt(True)  # flags after a stray word are still read, so that the stray word is what is named
        rest = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, [flag.name for flag in _own_flags()], n=1)
        advice = f"; did you mean --{near[0]}?" if near else ""
        raise _UsageError(f"--{error.flagname}: no such flag{advice}") from error
    except flags.IllegalFlagValueError as error:
        if _MISSING not in str(error):
            raise InputError(str(error).removeprefix("flag ")) from error
        missing = [f"--{flag.name}" for flag in _own_flags() if _required(flag) and flag.value is None]
        raise _UsageError("missing " + ", ".join(missing) if missing else str(error)) from error
    except flags.Error as error:  # a last flag without its value, a flagfile that is not there
        raise _UsageError(str(error).removeprefix("ERROR:: ")) from error
    if rest:
        raise _UsageError(f"{rest[0]}: not a flag; values are given as --name=value")
    return overrides


def _split_overrides(argv: list[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Takes `--config.key=text`, `--config.key text`, `--config.key` and `--noconfig.key` out of the arguments."""
    overrides, rest = [], []
    words = iter(range(len(argv)))
    for index in words:
        if argv[index] == "--":
            rest += argv[index:]
            break
        match = re.fullmatch(r"--?(no)?config\.([^=]*)(?:=(.*))?", argv[index], flags=re.DOTALL)
        if not match:
            rest.append(argv[index])
            continue
        no, key, text = match.groups()
        following = argv[index + 1] if index + 1 < len(argv) else "-"
        if no:
            text = "false"
        elif text is None and (not following.startswith("-") or re.match(r"-[.\d]", following)):
            text = argv[next(words)]
        overrides.append((key, text))
    return overrides, rest


def _own_flags() -> list[flags.Flag]:
    """The flags of the script and of the modules beside it, without those that libraries define for themselves."""
    folder = Path(sys.argv[0]).resolve().parent
    own = {}
    for name, defined in FLAGS.flags_by_module_dict().items():
        file = sys.argv[0] if name == sys.argv[0] else getattr(sys.modules.get(name), "__file__", None)
        if name == __name__ or (file and Path(file).resolve().parent == folder):
            own.update((flag.name, flag) for flag in defined)
    return list(own.values())


def _required(flag: flags.Flag) -> bool:
    return any(_MISSING in validator.message for validator in flag.validators)


def _asks_help(argv: list[str]) -> bool:
    before = argv[1 : argv.index("--")] if "--" in argv else argv[1:]
    return any(word in ("--help", "-help", "-h", "--h") for word in before)


def _print_help(argv: list[str], config: bool) -> None:
    print((sys.modules["__main__"].__doc__ or Path(argv[0]).name).strip())
    print("\nFlags:")
    for flag in sorted(_own_flags(), key=lambda flag: (not _required(flag), flag.name)):
        note = "required" if _required(flag) else None if flag.default is None else f"default {flag.default_as_str}"
        print(f"  --{flag.name}: {_one_line(flag.help)}" + (f" ({note})" if note else ""))
    if not config:
        return
    words = (re.fullmatch(r"--?config(?:=(.*))?", word) for word in argv)
    given = [word[1] or argv[index + 1] for index, word in enumerate(words) if word and (word[1] or argv[index + 1 :])]
    if not given:
        print("\nSettings of the config file are overridden as --config.KEY=VALUE; --config=FILE.py --help lists them.")
        return
    print(f"\nSettings of {given[-1]}, overridden as --config.KEY=VALUE:")
    config, explained = load_config(given[-1]), comments_of(_config_file(given[-1])[0])
    told = set()
    for key, parent, name in _settings(config):
        own = key.removeprefix("config.")
        groups = [own[:end] for end, letter in enumerate(own) if letter == "."]
        for group in [group for group in groups if group in explained and group not in told]:
            told.add(group)
            print(f"  config.{group}.*  # {explained[group]}")
        print(f"  {key} = {parent[name]!r}" + (f"  # {explained[own]}" if own in explained else ""))


# The config file


def load_config(name: str, overrides: list[tuple[str, str | None]] | None = None) -> ConfigDict:
    """Runs `get_config` of `FILE.py` or `FILE.py:ARGUMENT`, applies overrides in order, and locks the result.

    Raises:
      InputError: the file cannot be used, or overrides name unknown settings or values of a wrong type (all listed).
    """
    path, argument = _config_file(name)
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
        raise InputError(f"{_place(path, error)}: {type(error).__name__}: {_message(error)}") from error
    if isinstance(config, dict):
        config = ConfigDict(config)
    if not isinstance(config, ConfigDict):
        raise InputError(f"{path}: get_config() returned {type(config).__name__}, where a ConfigDict is needed")
    config.lock()
    _override(config, overrides or [])
    return config


def _config_file(name: str) -> tuple[Path, str | None]:
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
    text = error.msg if isinstance(error, SyntaxError) else error.args[0] if len(error.args) == 1 else error
    return _one_line(text)


def _no_such_file(path: Path) -> str:
    if path.is_dir():
        return f"{path}: is a folder; name a file in it"
    if not path.parent.is_dir():
        return f"{path}: no such config file; there is no folder {path.parent}"
    names = sorted(file.name for file in path.parent.glob("*.py"))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.4) or names[:5]
    return f"{path}: no such config file" + (f"; {path.parent} has " + ", ".join(near) if near else "")


# Overrides


def _settings(config: ConfigDict, prefix: str = "config") -> Iterator[tuple[str, ConfigDict, str]]:
    """(dotted key, the group that holds it, its name in the group) of every setting that is not itself a group."""
    for name in config:
        if isinstance(config[name], ConfigDict):
            yield from _settings(config[name], f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", config, name


def _override(config: ConfigDict, overrides: list[tuple[str, str | None]]) -> None:
    settings = {key: (group, name) for key, group, name in _settings(config)}
    # None is a value where the file itself says so, by None or by a placeholder, which keeps its type.
    optional = {key for key, (group, name) in settings.items() if group[name] is None}
    faults = []
    for key, text in overrides:
        key = f"config.{key}"
        if key in settings:
            group, name = settings[key]
            try:
                group[name] = _value(group, name, text, key in optional)
            except ValueError as error:
                shown = "" if text is None else f", not {text!r}"
                faults.append(f"--{key}: needs {error}{shown}")
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
                faults.append(f"--{key}: needs a mapping such as {{'image': 'img_path'}}, not {text!r}")
        elif members := [other for other in settings if other.startswith(f"{key}.")]:
            faults.append(f"--{key}: is a group of settings; set one of them: {', '.join(members)}")
        else:
            near = nearest(key, settings)
            faults.append(f"--{key}: no such setting" + (f"; did you mean {near}?" if near else ""))
    for names in _ALTERNATIVES:
        faults += _choose_alternative(names, settings, {f"config.{key}" for key, _ in overrides})
    if faults:
        raise InputError(faults)


def _choose_alternative(
    names: tuple[str, ...], settings: dict[str, tuple[ConfigDict, str]], overridden: set[str]
) -> list[str]:
    """Sets the alternatives of what the command line gives to 0; a fault where it gives several of one group."""
    faults = []
    for above in sorted({key.removesuffix(name) for key in settings for name in names if key.endswith(f".{name}")}):
        held = {key: settings[key] for key in (above + name for name in names) if key in settings}
        chosen = [key for key, (group, name) in held.items() if key in overridden and group[name]]
        if len(chosen) > 1:
            values = " and ".join(f"--{key}={held[key][0][held[key][1]]}" for key in chosen)
            faults.append(f"{values}: only one of them counts; leave one out")
        elif chosen:
            for group, name in (place for key, place in held.items() if key not in chosen):
                group[name] = 0
    return faults


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

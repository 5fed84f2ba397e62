"""What every script shares: flags, the config file and its overrides, exit status, and one-line reasons.

A script defines its own absl flags and ends with `command_line.run(main)`, or `command_line.run(main, config=True)`
to be given the locked ConfigDict of `--config=FILE.py[:ARGUMENT]` with every `--config.a.b=value` applied.

Exit status: 0 done; 2 a missing or unknown flag; 130 interrupted; 1 anything else. Each error is one line on standard
error; a traceback is printed with --debug only. What a script does is left to the script: nothing here loads JAX.
"""

import interrupts

import difflib
import errno
import os
import re
import select
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from config_file import file_and_argument, load_config, settings_of
from setting_comments import comments_of
from setting_words import meant
from teacher_kinds import take_kinds
from vlm_jax import terminal
from vlm_jax.error_list import printable
from vlm_jax.errors import InputError
from vlm_jax.parallel.starting import tpu_is_absent

FLAGS = flags.FLAGS

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
        return _fail(*printable(error.lines))
    except Stopped:
        return interrupts.STATUS
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


class Stopped(Exception):
    """A person asked a program to stop, and it did: nothing more is to be said."""


class _UsageError(Exception):
    """A missing or unknown flag."""


def _fail(*errors: str, status: int = 1) -> int:
    if FLAGS["debug"].value:
        traceback.print_exc()
    for error in errors:
        print(f"error: {terminal.line(error)}", file=sys.stderr)
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
        overrides, argv = split_overrides(argv) if config else ([], argv)
        FLAGS.set_gnu_getopt(True)  # flags after a stray word are still read, so that the stray word is what is named
        rest = FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        near = difflib.get_close_matches(error.flagname, [flag.name for flag in _own_flags()], n=1)
        setting = meant(error.flagname) if config else None
        advice = f"; did you mean --{near[0]}?" if near else f"; did you mean --config.{setting}?" if setting else ""
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


def split_overrides(argv: list[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
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


def given_flags() -> set[str]:
    """Names of the flags that the command line gives, of those that `--help` lists."""
    return {flag.name for flag in _own_flags() if flag.present}


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
    config_files = [
        word[1] or argv[index + 1] for index, word in enumerate(words) if word and (word[1] or argv[index + 1 :])
    ]
    if not config_files:
        print("\nSettings of the config file are overridden as --config.KEY=VALUE; --config=FILE.py --help lists them.")
        return
    print(f"\nSettings of {config_files[-1]}, overridden as --config.KEY=VALUE:")
    config, explained = load_config(config_files[-1]), comments_of(file_and_argument(config_files[-1])[0])
    take_kinds(config, split_overrides(argv)[0])
    printed = set()
    for key, parent, name in settings_of(config):
        own = key.removeprefix("config.")
        groups = [own[:end] for end, letter in enumerate(own) if letter == "."]
        for group in [group for group in groups if group in explained and group not in printed]:
            printed.add(group)
            print(f"  config.{group}.*  # {explained[group]}")
        print(f"  {key} = {parent[name]!r}" + (f"  # {explained[own]}" if own in explained else ""))

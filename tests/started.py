"""How tests start programs: their environment, and a short way to start one of Python.

Half of what a script takes in these tests is loading JAX and its like. `run` forks it from a process that has loaded
them (`loaded`); it is a process of its own all the same, with its own environment, folder, output and exit status. What
is sent signals, or has to load everything by itself, is started with `subprocess`.
"""

import atexit
import functools
import multiprocessing
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_PER_PROCESS = {"XLA_FLAGS", "TQDM_DISABLE", "PYTEST_CURRENT_TEST", "PYTHONPATH"}
"""What is read anew by each process that is forked, or by none; all else was read when the libraries were loaded."""


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """As in the tests themselves (`conftest`), with another number of virtual CPU devices."""
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": flags, "TQDM_DISABLE": "1", **more}


def as_shipped() -> dict[str, str]:
    """As a person's machine has it: one device, and programs compiled with all of XLA's optimisation."""
    return {**os.environ, "XLA_FLAGS": "", "TQDM_DISABLE": "1"}


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 280
) -> subprocess.CompletedProcess:
    """What `subprocess.run(command, capture_output=True, text=True, …)` does, sooner.

    Args:
      command: this Python, a script, and its arguments.

    Raises:
      subprocess.TimeoutExpired: the process was ended.
    """
    python, *arguments = map(str, command)
    assert python == sys.executable and arguments[0].endswith(".py"), command
    differing = {name for name in env.keys() | os.environ.keys() if env.get(name) != os.environ.get(name)}
    assert differing <= _PER_PROCESS, f"{differing - _PER_PROCESS} is read while libraries load; take subprocess.run"
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        process = _processes().Process(target=_script, args=(arguments, dict(env), str(cwd or Path.cwd()), *said))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, *(path.read_bytes() for path in said))
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text("utf-8") for path in said))


@functools.cache
def _processes():
    """Processes of a server that loads `tests.loaded` once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.loaded"])
    return context


def _script(arguments: list[str], env: dict[str, str], folder: str, *said: Path) -> None:
    """The forked process: becomes the script."""
    for number, path in enumerate(said, start=1):
        kept = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(kept, number)
        os.close(kept)
    assert "tests.loaded" in sys.modules, "the libraries were not loaded"  # a fault in it would pass in silence
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out

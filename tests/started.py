"""How tests start programs: their environment, and a short way to start one of Python.

Half of what a script takes in these tests is loading JAX and its like. `run` forks it from a process that has loaded
them (`loaded`); it is a process of its own all the same, with its own environment, folder, output and exit status. What
it shares with others is what loading leaves behind, such as the seed of `hash`. What is sent signals, or has to load
everything by itself, is started with `subprocess`; each of scripts/ is so in some test.
"""

import atexit
import contextlib
import functools
import multiprocessing
import multiprocessing.forkserver
import os
import re
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vlm_jax.checkpoint.files import alone

ROOT = Path(__file__).resolve().parents[1]
READ_ONCE = ("JAX_", "HF_", "TF_", "GRPC_", "OMP_", "PYTHON", "TOKENIZERS_", "TQDM_", "TRANSFORMERS_")
"""How variables begin that libraries read when they are loaded, not when they are used."""


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """As in the tests themselves (`conftest`), with another number of virtual CPU devices."""
    flags = re.sub(r"(device_count)=\d+", rf"\1={devices}", os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": flags, "TQDM_DISABLE": "1", **more}


def as_shipped() -> dict[str, str]:
    """As a person's machine has it: one device, and programs compiled with all of XLA's optimisation.

    For the instructions that the tests are held to, where they are.
    """
    instructions = re.findall(r"--xla_cpu_max_isa=\S+", os.environ["XLA_FLAGS"])
    return {**os.environ, "XLA_FLAGS": " ".join(instructions), "TQDM_DISABLE": "1"}


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path | None = None, timeout: float = 280
) -> subprocess.CompletedProcess:
    """What `subprocess.run(command, capture_output=True, text=True, …)` does, sooner.

    Args:
      command: this Python, a script, and its arguments.

    Raises:
      subprocess.TimeoutExpired: the process was ended.
    """
    python, *arguments = command = [str(word) for word in command]
    assert python == sys.executable and arguments[0].endswith(".py"), command
    if sys.platform == "darwin":  # where a process that has loaded much is not safely forked
        return subprocess.run(command, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True)
    context, read = _server()
    differing = {name: env.get(name) for name in read | _read_once(env) if env.get(name) != read.get(name)}
    assert not differing, f"read while libraries were loaded, and otherwise then: {differing}; take subprocess.run"
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder) / name for name in ("stdout", "stderr")]
        for path in said:
            path.touch()
        process = context.Process(target=_script, args=(arguments, dict(env), str(cwd or Path.cwd()), *said))
        process.start()
        try:
            process.join(timeout)
            status = process.exitcode
        finally:  # also where the test itself is ended
            process.kill()
            process.join()
        told = [path.read_text("utf-8") for path in said]
    if status is None:
        raise subprocess.TimeoutExpired(command, timeout, *told)
    return subprocess.CompletedProcess(command, status, *told)


def context():
    """What processes are made with that have loaded what `run` has, for functions instead of scripts."""
    return _server()[0]


def wait_for_the_lock(folder: Path) -> None:
    """A killed process closes its files one after the other: it may be gone for who started it, and hold the lock."""
    for _ in range(1000):
        with contextlib.suppress(ValueError), alone(folder, "testing"):
            return
        time.sleep(0.01)
    raise AssertionError("a killed process keeps its lock")


def _read_once(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_ONCE)}


@functools.cache
def _server():
    """Starts the process that has loaded `tests.loaded`; what processes are made with, and what it read."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.loaded"])
    with contextlib.chdir(ROOT):  # from where it finds `tests`
        multiprocessing.forkserver.ensure_running()
    return context, _read_once(environment())


def _is_ours(path: str) -> bool:
    return Path(path).resolve().is_relative_to(ROOT)


def _script(arguments: list[str], env: dict[str, str], folder: str, *said: Path) -> None:
    """The forked process: becomes the script."""
    for number, path in enumerate(said, start=1):
        kept = os.open(path, os.O_WRONLY)
        os.dup2(kept, number)
        os.close(kept)
    assert "tests.loaded" in sys.modules, "the libraries were not loaded"  # an error in it would pass in silence
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = arguments
    # A script finds what is installed and what lies beside it, not what the tests can import.
    installed = [path for path in sys.path if path and (Path(path).is_relative_to(sys.prefix) or not _is_ours(path))]
    sys.path = [str(Path(arguments[0]).resolve().parent), *installed]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    np.random.seed()
    try:
        runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out

"""Ctrl-C at any moment is one line and status 130."""

import interrupts

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.started import environment

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
BEGUN = "import interrupts\nimport signal, sys, time\ninterrupts.begin()\n"


def run(folder, program):
    """A program beside a copy of `interrupts`, as the scripts stand beside it."""
    shutil.copy(SCRIPTS / "interrupts.py", folder)
    (folder / "program.py").write_text(program)
    (folder / "slow.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\nprint('went on')\n")
    return subprocess.run([sys.executable, folder / "program.py"], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "program",
    [
        "import interrupts\nimport signal\nsignal.raise_signal(signal.SIGINT)\nprint('went on')\n",
        "import interrupts\nimport slow\n",
        f"{BEGUN}import slow\n",
        f"{BEGUN}try:\n    import slow\nexcept BaseException:\n    print('caught in the middle of an import')\n",
    ],
    ids=["before main", "an import before main", "an import", "an import that catches everything"],
)
def test_while_loading_it_ends_at_once(tmp_path, program):
    done = run(tmp_path, program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


def test_later_it_is_an_exception(tmp_path):
    caught = "try:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('caught')\n"
    done = run(tmp_path, BEGUN + caught)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")


LOST = """
class Falls:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

try:
    Falls()
    time.sleep(30)
    print("lost")
except KeyboardInterrupt:
    print("caught")
    interrupts.leave(130)
"""


def test_in_a_callback_that_cannot_raise_it_comes_again(tmp_path):
    done = run(tmp_path, BEGUN + LOST)
    assert (done.returncode, done.stdout, done.stderr) == (130, "caught\n", "")


def test_other_exceptions_of_callbacks_are_printed_as_ever(tmp_path):
    done = run(tmp_path, f"{BEGUN}class Falls:\n    def __del__(self):\n        1 / 0\n\nFalls()\n")
    assert done.returncode == 0 and "Exception ignored" in done.stderr and "ZeroDivisionError" in done.stderr


def test_where_it_is_ignored_it_stays_ignored(tmp_path):
    program = "import interrupts\nimport signal\nsignal.raise_signal(signal.SIGINT)\nprint('went on')\n"
    (tmp_path / "starter.py").write_text(
        "import signal, subprocess, sys\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "sys.exit(subprocess.run([sys.executable, sys.argv[1]]).returncode)\n"
    )
    run(tmp_path, program)
    command = [sys.executable, tmp_path / "starter.py", tmp_path / "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_script_that_is_imported_leaves_signals_alone():
    assert signal.getsignal(signal.SIGINT) is not interrupts._interrupted
    assert sys.unraisablehook is not interrupts._not_raised


@pytest.mark.parametrize("delay", [0.3, 0.6, 0.9, 1.4, 2.0])
def test_a_program_ends_with_its_one_line_whenever_it_comes(tmp_path, delay):
    command = [sys.executable, SCRIPTS / "chat.py", f"--model={SCRIPTS.parent / 'vlm_jax/assets/tiny_base'}"]
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    # -2: so early that Python had not come to the script.
    assert process.returncode in (130, -2) and (process.returncode != 130 or told == "error: interrupted\n"), told


def test_another_interpreter_is_told_which_one_to_take():
    lonely = [sys.executable, "-S", str(SCRIPTS / "train.py"), "--help"]  # without the packages of the environment
    done = subprocess.run(lonely, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "run make setup" in done.stderr and ".venv/bin/python" in done.stderr

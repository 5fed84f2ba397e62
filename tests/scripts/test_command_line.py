"""Flags, config overrides, exit status and one-line reasons, seen from outside: each test starts a small script."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = '''
"""Does something small.

    scripts/small.py --model=PATH
"""
from absl import flags
import command_line
from vlm_jax.errors import InputError

_MODEL = flags.DEFINE_string("model", None, "folder of the model", required=True)
_STEPS = flags.DEFINE_integer("steps", 3, "how many")

def main():
    BODY
    print("model", _MODEL.value, "steps", _STEPS.value)

if __name__ == "__main__":
    command_line.run(main)
'''

CONFIG_SCRIPT = '''
"""Prints its settings."""
import sys
import command_line

def main(config):
    print(config.to_json_best_effort())
    print("jax" in sys.modules, config.is_locked)

if __name__ == "__main__":
    command_line.run(main, config=True)
'''

CONFIG = """
from ml_collections import config_dict

def get_config(kind="plain"):
    config = config_dict.ConfigDict()
    config.kind = kind
    config.train = config_dict.ConfigDict()
    config.train.steps = 100
    config.train.learning_rate = 1e-4
    config.train.resume = False
    config.train.seed = config_dict.placeholder(int)
    config.train.note = None
    config.data = config_dict.ConfigDict(dict(paths=("a.json",), sizes=(1, 2), weights=[0.5, 0.5]))
    config.data.steps_twice = config.train.get_oneway_ref("steps") * 2
    return config
"""


@pytest.fixture
def start(tmp_path):
    """Writes `script` beside a config and runs it there; gives (status, stdout, lines of stderr)."""
    (tmp_path / "settings.py").write_text(CONFIG)

    def call(script, *arguments):
        (tmp_path / "small.py").write_text(textwrap.dedent(script))
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
        command = [sys.executable, "small.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout, done.stderr.splitlines()

    return call


@pytest.fixture
def settings(start):
    return lambda *overrides: start(CONFIG_SCRIPT, "--config=settings.py", *overrides)


def body(code):
    return SCRIPT.replace("BODY", code)


def test_a_script_that_ends_well_exits_with_0_and_prints_nothing_else(start):
    assert start(body("pass"), "--model=m", "--steps", "5") == (0, "model m steps 5\n", [])


def test_an_unknown_flag_exits_with_2_and_names_the_nearest(start):
    status, _, errors = start(body("pass"), "--modle=m")
    assert (status, len(errors)) == (2, 1)
    assert errors[0].startswith("error: --modle: no such flag; did you mean --model?")


def test_a_flag_of_another_trainer_is_told_as_the_setting_that_it_means(settings):
    status, _, errors = settings("--learning_rate=1e-3")
    assert (status, len(errors)) == (2, 1)
    assert errors[0].startswith("error: --learning_rate: no such flag; did you mean --config.optimizer.learning_rate?")


def test_a_missing_flag_exits_with_2_and_is_named(start):
    status, _, errors = start(body("pass"))
    assert (status, len(errors)) == (2, 1)
    assert "missing --model" in errors[0]


def test_a_word_that_is_no_flag_exits_with_2(start):
    status, _, errors = start(body("pass"), "stray", "--model=m")
    assert (status, len(errors)) == (2, 1)
    assert "stray" in errors[0]


def test_a_flag_value_of_the_wrong_type_exits_with_1_even_before_a_required_flag(start):
    status, _, errors = start(body("pass"), "--steps=many", "--model=m")
    assert (status, len(errors)) == (1, 1)
    assert "--steps=many" in errors[0]


def test_every_error_in_the_input_is_a_line_of_its_own(start):
    status, _, errors = start(body("raise InputError(['a.csv, row 3: no image', 'b.csv: empty'])"), "--model=m")
    assert (status, errors) == (1, ["error: a.csv, row 3: no image", "error: b.csv: empty"])


def test_an_error_of_the_system_is_one_line_that_names_the_file(start):
    status, _, errors = start(body("open('/nowhere/x')"), "--model=m")
    assert (status, errors) == (1, ["error: /nowhere/x: No such file or directory"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line(start):
    status, _, errors = start(body("open('/dev/full', 'w').write('x' * 10**6)"), "--model=m")
    assert (status, errors) == (1, ["error: the disk is full; free some room, and give the same command again"])


def test_an_unexpected_exception_is_one_line_and_a_traceback_only_with_debug(start):
    script = body("raise KeyError('lost\\\\nkey')")
    status, _, errors = start(script, "--model=m")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith("error: KeyError:") and "--debug" in errors[0]
    status, _, errors = start(script, "--model=m", "--debug")
    assert status == 1
    assert errors[0].startswith("Traceback") and errors[-1].startswith("error: KeyError:")


def test_an_interrupt_exits_with_130_and_one_line(start):
    assert start(body("raise KeyboardInterrupt"), "--model=m") == (130, "", ["error: interrupted"])


@pytest.mark.parametrize("arguments", ["--model=m", "--help"])
def test_a_reader_that_has_read_enough_is_no_error(start, tmp_path, arguments):
    start(body("print('x' * 10**6)").replace("something small", "something small" * 10**5), "--model=m")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "scripts")])}
    command = f"set -o pipefail; {sys.executable} small.py {arguments} | true"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


def test_a_pipe_that_is_not_our_output_is_told(start):
    status, _, errors = start(body("raise BrokenPipeError(32, 'Broken pipe')"), "--model=m")
    assert (status, errors) == (1, ["error: Broken pipe"])


def test_help_prints_the_docstring_and_only_the_flags_of_the_script(start):
    status, output, errors = start(body("pass"), "--help")
    assert (status, errors) == (0, [])
    assert "Does something small." in output and "scripts/small.py --model=PATH" in output
    listed = [line.split(":")[0].strip() for line in output.splitlines() if line.startswith("  --")]
    assert listed == ["--model", "--debug", "--steps"]
    assert "(required)" in output and "(default '3')" in output


def test_help_with_a_config_lists_its_settings_with_their_defaults(settings):
    status, output, _ = settings("--help")
    assert status == 0
    assert "Prints its settings." in output
    assert "config.train.steps = 100" in output and "config.data.paths = ('a.json',)" in output


def test_overrides_of_every_type_arrive_in_a_locked_config_without_loading_jax(settings):
    status, output, errors = settings(
        "--config.train.steps=7",
        "--config.train.learning_rate=3",
        "--config.train.resume",
        "--config.train.seed=11",
        "--config.train.note=[1, 'x']",
        "--config.kind=true",
        "--config.data.paths=b.json,c.json",
        "--config.data.sizes=(3, 4, 5)",
        "--config.data.weights=[1, 0]",
    )
    assert (status, errors) == (0, [])
    expected = (
        '{"data": {"paths": ["b.json", "c.json"], "sizes": [3, 4, 5], "steps_twice": 14, "weights": [1.0, 0.0]}, '
        '"kind": "true", "train": {"learning_rate": 3.0, "note": [1, "x"], "resume": true, "seed": 11, "steps": 7}}'
    )
    printed, loaded_and_locked = output.splitlines()
    assert json.loads(printed) == json.loads(expected)
    assert loaded_and_locked == "False True"


@pytest.mark.parametrize("text", ["--config.train.resume=true", "--config.train.resume=1", "--config.train.resume"])
def test_a_switch_is_turned_on_in_each_usual_way(settings, text):
    assert '"resume": true' in settings(text)[1]


def test_a_switch_is_turned_off_with_no_and_the_last_override_holds(settings):
    assert '"resume": false' in settings("--config.train.resume", "--noconfig.train.resume")[1]


def test_a_value_may_follow_as_a_word_of_its_own_even_a_negative_one(settings):
    status, output, _ = settings("--config.train.learning_rate", "-.5", "--config.train.steps", "9")
    assert status == 0
    assert '"learning_rate": -0.5' in output and '"steps": 9' in output


def test_none_is_taken_where_the_file_allows_it_and_nowhere_else(settings):
    assert '"seed": null' in settings("--config.train.seed=1", "--config.train.seed=none")[1]
    status, _, errors = settings("--config.train.steps=none")
    assert (status, len(errors)) == (1, 1)


def test_the_argument_after_the_colon_is_given_to_get_config(start):
    assert '"kind": "other"' in start(CONFIG_SCRIPT, "--config=settings.py:other")[1]


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("trian.steps=1", "config.train.steps"),
        ("train.learning_rat=1", "config.train.learning_rate"),
        ("steps=1", "config.train.steps"),
        ("data.path=x", "config.data.paths"),
    ],
)
def test_an_unknown_key_exits_with_1_and_names_the_nearest(settings, wrong, nearest):
    status, output, errors = settings(f"--config.{wrong}")
    assert (status, output) == (1, "")
    assert errors == [f"error: --config.{wrong.split('=')[0]}: no such setting; did you mean {nearest}?"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.steps=abc", "int"),
        ("train.steps=1.5", "int"),
        ("train.learning_rate=fast", "float"),
        ("train.resume=perhaps", "true or false"),
        ("train.seed=x", "none"),
        ("data.sizes=(1, 'x')", "tuple whose items are int"),
    ],
)
def test_a_wrong_type_exits_with_1_and_names_key_type_and_text(settings, override, expected):
    key, _, text = override.partition("=")
    status, _, errors = settings(f"--config.{override}")
    assert (status, len(errors)) == (1, 1)
    assert f"--config.{key}: needs" in errors[0] and expected in errors[0] and text in errors[0].replace('"', "'")


def test_all_wrong_overrides_are_listed_together(settings):
    status, _, errors = settings("--config.trian.steps=1", "--config.train.steps=x", "--config.train=3")
    assert status == 1
    assert len(errors) == 3 and "is a group of settings" in errors[2]


def test_a_script_that_needs_a_config_and_gets_none_exits_with_2(start):
    status, _, errors = start(CONFIG_SCRIPT, "--config.train.steps=1")
    assert (status, len(errors)) == (2, 1)
    assert "missing --config" in errors[0]


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("setings.py", None, "settings.py"),
        ("nowhere/settings.py", None, "there is no folder nowhere"),
        ("broken.py", "def get_config(:\n", "broken.py, line 1: SyntaxError"),
        ("missing.py", "import no_such_package\n", "missing.py, line 1: ModuleNotFoundError"),
        ("empty.py", "x = 1\n", "defines no get_config()"),
        ("raising.py", "def get_config():\n  raise KeyError('x')\n", "raising.py, line 2: KeyError"),
        ("leaving.py", "import sys\nsys.exit(3)\n", "leaving.py, line 2: SystemExit"),
        ("nothing.py", "def get_config():\n  pass\n", "returned NoneType"),
        ("settings.py:a:b", None, ""),
        ("strict.py:a", "def get_config():\n  return {}\n", "takes no argument"),
        ("asking.py", "def get_config(kind):\n  return {}\n", "--config=asking.py:ARGUMENT"),
        (
            "locked.py",
            CONFIG + "\n_base = get_config\ndef get_config():\n  c = _base().lock()\n  c.train.stepz = 1\n  return c\n",
            "AttributeError",
        ),
        (
            "earlier.py",
            CONFIG + "\n_base = get_config\ndef get_config():\n  c = _base()\n  c.held_out.path = 'a'\n  return c\n",
            "AttributeError: held_out (held_out is validation now)",
        ),
        (".", None, "is a folder"),
    ],
)
def test_a_config_file_that_cannot_be_used_is_one_line_that_names_it(start, tmp_path, name, source, reason):
    if source:
        (tmp_path / name.split(":")[0]).write_text(source)
    status, _, errors = start(CONFIG_SCRIPT, f"--config={name}")
    if not reason:
        assert (status, errors) == (0, [])
        return
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith(f"error: {name.split(':')[0]}") and reason in errors[0]


def test_a_config_edited_twice_in_a_second_is_read_as_it_is(start, tmp_path):
    for steps in ("111", "222", "333"):
        (tmp_path / "quick.py").write_text(f"def get_config():\n  return dict(steps={steps})\n")
        assert steps in start(CONFIG_SCRIPT, "--config=quick.py")[1]

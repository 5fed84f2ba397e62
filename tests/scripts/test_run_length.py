"""How long a run is: steps or epochs, of which the one on the command line counts, and never both."""

import importlib
import sys
from pathlib import Path

import pytest

from vlm_jax.errors import InputError
from vlm_jax.training.config import check_config, default_config, epochs_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def command_line():
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("command_line")
    sys.path.remove(str(ROOT / "scripts"))


def length(command_line, path, *overrides):
    config = command_line.load_config(str(path), [tuple(override.split("=")) for override in overrides])
    config.model.path, config.data.path = config.model.path or "model", config.data.path or "data.csv"
    check_config(config)
    return config.train.steps, config.train.epochs


def page(folder, *lines):
    path = folder / "page.py"
    body = "".join(f"    {line}\n" for line in lines)
    path.write_text(
        f"from vlm_jax.training.config import default_config\ndef get_config():\n    config = default_config()\n{body}"
        "    return config\n"
    )
    return path


def test_what_the_command_line_gives_takes_the_place_of_what_the_file_sets(command_line, tmp_path):
    steps, epochs = ROOT / "configs" / "photos.py", ROOT / "configs" / "quickstart.py"
    assert length(command_line, steps) == (140, 0)
    assert length(command_line, steps, "train.epochs=3") == (0, 3)
    assert length(command_line, steps, "train.steps=7") == (7, 0)
    assert length(command_line, epochs) == (0, 1)
    assert length(command_line, epochs, "train.steps=7") == (7, 0)
    neither = page(tmp_path)
    assert length(command_line, neither) == (0, 0) and epochs_of(default_config().train) == 1
    assert length(command_line, neither, "train.epochs=2") == (0, 2)


def test_what_is_set_to_nothing_on_the_command_line_takes_no_place(command_line):
    steps = ROOT / "configs" / "photos.py"
    assert length(command_line, steps, "train.epochs=0") == (140, 0)
    assert length(command_line, steps, "train.steps=0", "train.epochs=2") == (0, 2)
    assert length(command_line, steps, "train.epochs=0", "train.steps=9") == (9, 0)


@pytest.mark.parametrize("order", [("train.steps=5", "train.epochs=3"), ("train.epochs=3", "train.steps=5")])
def test_both_on_the_command_line_are_an_error_that_names_both(command_line, order):
    with pytest.raises(InputError) as error:
        length(command_line, ROOT / "configs" / "photos.py", *order)
    assert error.value.lines == [
        "--config.train.steps=5 and --config.train.epochs=3: only one of them counts; leave one out"
    ]


def test_both_in_a_file_are_an_error_that_names_both(command_line, tmp_path):
    both = page(tmp_path, "config.train.steps, config.train.epochs = 5, 3")
    with pytest.raises(InputError, match="train.steps is 5 and config.train.epochs is 3: only one of them counts"):
        length(command_line, both)
    assert length(command_line, both, "train.epochs=4") == (0, 4)


def test_a_sweep_whose_page_counts_epochs_is_given_steps(command_line):
    scaling = command_line.load_config(str(ROOT / "configs" / "ablations" / "scaling.py"), [("set.train.steps", "20")])
    assert (scaling.set["train.steps"], scaling.set["train.epochs"]) == (20, 0)

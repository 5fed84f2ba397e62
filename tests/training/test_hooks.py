"""What a run does between its steps, and a whole run as a function."""

import io
import json
import multiprocessing
import os
import sys
import time

import pytest

from data_pipeline import training_run
from data_pipeline.check import Division
from data_pipeline.training_run import run
from tests.consoles import Lines
from tests.tiny_models import PHOTOS
from vlm_jax.checkpoint import run_folder
from vlm_jax.errors import InputError
from vlm_jax.training.config import default_config
from vlm_jax.training.hooks import EarlyStop, Measures, Samples, Validation
from vlm_jax.training.log import Console, RunLog
from vlm_jax.training.run_state import RunState


class Log(RunLog):
    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)

    def validation(self, step, loss, score=None, metric=""):
        self.lines.append((step, loss))


def state(step):
    return RunState(step, {"a": 1}, None, {"b": 2})


def test_validation_is_taken_at_its_cadence_from_all_parameters_and_once_a_step():
    seen = []
    validation = Validation(
        Measures(lambda parameters: seen.append(parameters) or 1.5), every=3, log=Log(), earlier=[2.0]
    )
    assert [step for step in range(1, 10) if validation.due(step)] == [3, 6, 9]
    validation(state(3))
    validation(state(3))
    assert seen == [{"a": 1, "b": 2}] and validation.losses == [2.0, 1.5] and validation.step == 3


@pytest.mark.parametrize(
    ("losses", "patience", "ends_at"),
    [
        ([3.0, 2.0, 2.5, 2.4, 1.0], 2, 4),
        ([3.0, 2.0, 2.5, 1.9, 1.8], 2, None),
        ([1.0, 1.0, 1.0], 2, 3),  # as low as before is not lower
        ([3.0, 2.0, 1.0], 1, None),
    ],
)
def test_patience_counts_how_often_the_loss_was_not_lower(losses, patience, ends_at):
    log, following = Log(), iter(losses)
    validation = Validation(Measures(lambda parameters: next(following)), every=1, log=log)
    stop = EarlyStop(validation, patience=patience, log=log)
    ended = None
    for step in range(1, len(losses) + 1):
        now = state(step)
        validation(now)
        assert stop.due(step)
        stop(now)
        assert not stop.due(step)
        if now.ended:
            ended = step
            break
    assert ended == ends_at
    assert any("lowest" in str(line) for line in log.lines) == (ends_at is not None)


def test_samples_are_due_at_their_cadence_alone():
    written = []
    samples = Samples(lambda step, parameters: written.append((step, parameters)), every=2)
    assert [samples.due(step) for step in (1, 2, 3, 4)] == [False, True, False, True]
    samples(state(4))
    assert written == [(4, {"a": 1, "b": 2})]
    assert not any(Samples(lambda step, parameters: None, every=0).due(step) for step in range(1, 9))


@pytest.fixture
def config(one_layer):
    config = default_config()
    config.model.update(path=str(one_layer), max_visual_tokens=16)
    config.data.path = str(PHOTOS / "photos.json")
    config.batch.update(rows=8, sequence_length=256)
    config.train.update(steps=20, remat="none")
    config.optimizer.learning_rate = 1e-12  # so small that no weight changes
    config.validation.update(path=str(PHOTOS / "same_question.json"), every=1, patience=2)
    config.checkpoint.every = 100
    return config


def test_a_run_ends_early_stays_ended_and_goes_on_with_more_patience(config, tmp_path):
    console = Lines()
    result = run(config, str(tmp_path / "run"), console=console)
    assert (result.steps, result.done, result.stopped) == (20, 3, False)
    assert any("validation.patience" in line for line in console.lines)
    assert f"training {config.model.path} on {config.data.path}" in console.lines
    assert run_folder.latest_step(tmp_path / "run") == 3

    again = run(config, str(tmp_path / "run"), console=Lines())
    assert (again.done, again.stopped) == (3, False)
    config.validation.patience = 4
    further = run(config, str(tmp_path / "run"), console=Lines())
    assert further.done == 5 and run_folder.latest_step(tmp_path / "run") == 5


def test_a_run_says_what_happened_and_that_it_was_finished_before(config, tmp_path):
    config.validation.update(path="", patience=0)
    config.train.steps = 2
    first = run(config, str(tmp_path / "run"))
    assert (first.done, first.steps, first.trained, first.stopped) == (2, 2, True, False)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    second = run(config, str(tmp_path / "run"))
    assert (second.done, second.trained) == (2, False)
    settings = json.loads((tmp_path / "run" / "config.json").read_text())
    assert settings["batch"]["sequence_length"] == 256


@pytest.mark.parametrize("ends", ["done", "with an error"])
def test_no_process_that_decodes_images_outlives_a_run(config, tmp_path, ends):
    config.data.workers = 1
    config.train.update(steps=2, max_skipped_steps=1)
    config.validation.patience = 0
    before = set(multiprocessing.active_children())
    if ends == "done":
        assert run(config, str(tmp_path / "run"), console=Lines()).done == 2
    else:
        config.optimizer.update(learning_rate=1e30, warmup_fraction=0.0)
        config.train.steps = 8
        with pytest.raises(InputError, match="nothing of them is saved") as caught:  # and the program keeps the error
            run(config, str(tmp_path / "run"), console=Lines())
        assert caught.value.lines
    deadline = time.monotonic() + 20
    while (left := set(multiprocessing.active_children()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_processes_divide_the_images_of_the_validation_too(config, tmp_path, monkeypatch):
    shared = []
    # An image that the other process says nothing of is looked at by this one.
    division = Division(0, 2, lambda sizes: shared.append(len(sizes)) or sizes)
    monkeypatch.setattr(training_run, "_division", lambda: division)
    config.train.steps = 1
    config.validation.patience = 0
    run(config, str(tmp_path / "run"), console=Lines())
    images = []
    for path in (config.data.path, config.validation.path):
        named = [entry.get("image") for entry in json.loads(open(path).read())]
        images.append(
            len({name for names in named for name in (names if isinstance(names, list) else [names]) if name})
        )
    assert shared == images


def test_a_run_refuses_what_a_program_may_not_use(config, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="holds files that are not a run's"):
        run(config, str(tmp_path / "mine"))
    config.train.remat = "some"
    with pytest.raises(InputError, match="config.train.remat is 'some'; wanted auto, none, products"):
        run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_patience_without_validation_data_is_refused(config, tmp_path):
    config.validation.path = ""
    with pytest.raises(InputError, match="config.validation.patience is 2; wanted 0 without validation.path"):
        run(config, str(tmp_path / "run"))


def more_rows(table):
    table.write_text(table.read_text() + f"{PHOTOS / 'coffee.jpg'},What is in the cup?,Coffee\n")


def other_rows(table):
    table.write_text(table.read_text().replace("Chelsea", "Tom"))


def no_table(table):
    table.unlink()


def test_a_finished_run_that_is_given_other_data_says_that_it_learned_nothing_of_them(config, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(
        f"image,question,answer\n{PHOTOS / 'chelsea.jpg'},What is the cat called?,Chelsea\n"
        f"{PHOTOS / 'coffee.jpg'},What is it?,A cup\n"
    )
    config.data.path = str(table)
    config.validation.update(path="", patience=0)
    config.train.steps = 1
    assert run(config, str(tmp_path / "run")).trained
    assert not run(config, str(tmp_path / "run")).trained
    before = table.read_bytes()
    for change, said in (
        (more_rows, ["data is not what it was started with: 1 added (", "config.model.path=", "another --workdir"]),
        (other_rows, ["data is not what it was started with: 1 changed ("]),
        (no_table, ["table.csv"]),
    ):
        table.write_bytes(before)
        change(table)
        with pytest.raises(InputError) as caught:
            run(config, str(tmp_path / "run"))
        (line,) = caught.value.lines
        assert all(words in line for words in said), line


def test_validation_on_what_is_trained_on_is_pointed_out(config, tmp_path):
    config.validation.update(path=f"{PHOTOS / 'photos.json'},{PHOTOS / 'same_question.json'}", patience=0)
    config.train.steps, console = 1, Lines()
    run(config, str(tmp_path / "run"), console=console)
    (line,) = [line for line in console.lines if "WARNING" in line]
    assert f"{PHOTOS / 'photos.json'} is trained on and validated on" in line and "same_question" not in line


def test_a_terminal_that_says_it_has_no_columns_gets_a_bar_of_eighty(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

        def fileno(self):
            return 2

    for columns, width in ((0, 80), (100, None)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(os, "get_terminal_size", lambda fd, columns=columns: os.terminal_size((columns, 24)))
        log = RunLog(tmp_path, steps=10, done=0, every=1, console=Console())
        assert (log._bar.ncols == 80) == (width == 80)
        log.close()

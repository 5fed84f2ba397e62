"""A sweep as a function, in this process, with a program for cells that trains nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from config_file import load_config
from data_pipeline import sweep_run
from data_pipeline.sweep_cells import folders_of
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.evaluation.sweep import sweep_config

ROOT = Path(sweep_run.__file__).parents[1]
CELL = """
import json, os, signal, sys, time
from pathlib import Path
given = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
run, evaluation, share = Path(given["workdir"]), Path(given["output"]), float(given["config.data.share"])
print("begun with", share)
if share == 0.1:
    sys.exit("error: data.path: no such file")
if share == 0.2:
    os.kill(os.getpid(), signal.SIGKILL)
if share == 0.45:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(1)
if share == 0.3:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
run.mkdir(), evaluation.mkdir()
(run / "metrics.jsonl").write_text('{"seconds": 2.0}\\n' * 3)
(evaluation / "report.json").write_text(json.dumps({"mean": share, "low": 0.4, "high": 0.6, "n": 4}))
"""


@pytest.fixture
def sweep(tmp_path):
    """Runs a sweep whose cells have these shares of the data, and tells what it said."""
    (tmp_path / "cell.py").write_text(CELL)
    started = {"program": [sys.executable, str(tmp_path / "cell.py")], "load": load_config}

    def run(*shares, what=sweep_run.run, output=tmp_path / "out", changed=(), **more):
        config = sweep_config(
            train=str(ROOT / "configs" / "photos.py"),
            set={"data.path": str(PHOTOS / "photos.json"), **dict(changed)},
            axes={"share": {str(share): {"data.share": share} for share in shares}},
            seeds=(0,),
            benchmark=str(PHOTOS / "same_question.json"),
        )
        return what(config, output, **started, **more)

    return run


def test_what_every_cell_came_to_is_returned(sweep, tmp_path):
    output = []
    result = sweep(0.4, 0.6, say=output.append)
    assert [folder.cell.labels for folder in result.folders] == [{"share": "0.4"}, {"share": "0.6"}]
    assert [folder.state["mean"] for folder in result.folders] == [0.4, 0.6]
    assert (result.failed, result.stopped) == ({}, False)
    assert result.table == (tmp_path / "out" / "table.md").read_text()
    assert "[2/2] share 0.6, seed 0: 60.0% of 4, in 0:00:0" in output[-1]
    assert [folder.progress for folder in sweep(0.4, 0.6, 0.8, what=folders_of)] == ["finished", "finished", "new"]
    output.clear()
    sweep(0.4, 0.6, say=output.append)
    assert output == ["2 of 2 cells are finished already"]


def test_a_cell_that_fails_or_is_killed_does_not_end_the_sweep(sweep, tmp_path):
    output = []
    result = sweep(0.1, 0.2, 0.6, say=output.append)
    assert result.failed == {
        "share-0.1_seed-0": "error: data.path: no such file",
        "share-0.2_seed-0": "cell.py was ended by SIGKILL",
    }
    assert [folder.finished for folder in result.folders] == [False, False, True] and not result.stopped
    assert "[1/3] share 0.1, seed 0: FAILED\n    begun with 0.1\n    error: data.path: no such file" in output
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["mean"] for line in lines] == [0.6]


def test_asked_to_stop_it_asks_the_cell_and_begins_no_other(sweep):
    output, before = [], signal.getsignal(signal.SIGTERM)
    result = sweep(0.3, 0.6, say=output.append)
    assert result.stopped and not result.failed and not any(folder.finished for folder in result.folders)
    assert output[-2:] == [
        "stopping: the cell saves what it has; a second Ctrl-C ends it at once",
        "stopped; the same command goes on from here",
    ]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_cell_that_finishes_while_it_is_asked_to_stop_is_told_and_in_the_table(sweep, tmp_path):
    output = []
    result = sweep(0.45, 0.6, say=output.append)
    assert result.stopped and [folder.finished for folder in result.folders] == [True, False]
    assert "[1/2] share 0.45, seed 0: 45.0% of 4, in 0:00:0" in output[-2] and output[-1].startswith("stopped")
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["mean"] == 0.45 and "45.0%" in result.table


def test_a_program_that_sweeps_does_not_wait_for_jax():
    code = "import sys; from data_pipeline import sweep_run; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_folder_of_a_sweep_may_be_given_as_text(sweep, tmp_path):
    sweep(0.6, output=str(tmp_path / "out"))
    assert (tmp_path / "out" / "table.md").is_file()
    assert [folder.progress for folder in sweep(0.6, what=folders_of, output=str(tmp_path / "out"))] == ["finished"]


def test_a_mixture_of_data_reaches_the_training(sweep, tmp_path):
    photos = json.loads((PHOTOS / "photos.json").read_text())
    entries = [{("p" if key == "image" else key): value for key, value in one.items()} for one in photos]
    (tmp_path / "photos.json").write_text(json.dumps(entries))
    parts = {
        "mine": {"path": str(tmp_path / "photos.json"), "weight": 2.0},
        "b": {"path": str(tmp_path / "photos.json")},
    }
    (folder,) = sweep(
        0.6, what=folders_of, changed={"data.path": "", "data.mixture": parts, "data.columns": {"image": "p"}}
    )
    assert folder.settings["data.mixture"] == parts and folder.settings["data.columns"] == {"image": "p"}
    words = [word.removeprefix("--config.") for word in folder.command if word.startswith("--config.")]
    training = load_config(str(ROOT / "configs" / "photos.py"), [tuple(word.split("=", 1)) for word in words])
    assert training.data.mixture.to_dict() == parts and training.data.path == ""
    assert training.data.columns.to_dict() == {"image": "p"}


def test_a_cell_of_an_earlier_version_is_compared_by_the_names_that_settings_have_now(sweep, tmp_path):
    sweep(0.6)
    record = tmp_path / "out" / "cells" / "share-0.6_seed-0" / "cell.json"
    state = json.loads(record.read_text())
    settings = state["settings"]
    settings["batch.tokens"] = settings.pop("batch.sequence_length")
    settings["train.what"] = settings.pop("train.trainable")
    settings["train.first"]["what"] = settings["train.first"].pop("trainable")
    settings["optimizer.scales"] = settings.pop("optimizer.lr_multipliers")
    del settings["model.visual_tokens"]
    record.write_text(json.dumps(state))
    output = []
    sweep(0.6, say=output.append)
    assert output == ["1 of 1 cells are finished already"]

    settings["batch.tokens"] += 1
    settings["optimizer.scales"]["vision"] = 0.25
    record.write_text(json.dumps(state))
    with pytest.raises(InputError) as caught:
        sweep(0.6, changed={"model.visual_tokens": 0.5})
    for part in (
        f"batch.sequence_length = {settings['batch.tokens']}, which is now {settings['batch.tokens'] - 1}",
        "optimizer.lr_multipliers.vision = 0.25, which is now 1.0",
        "model.visual_tokens = 1.0, which is now 0.5",
    ):
        assert part in str(caught.value)


def test_nothing_is_made_for_settings_that_no_training_has(sweep, tmp_path):
    with pytest.raises(InputError, match="config.data.share is 2.0; wanted a share above 0, up to 1"):
        sweep(2.0)
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_opened_is_told_before_a_cell_is_run(sweep, tmp_path):
    with pytest.raises(InputError) as refused:
        sweep(0.6, 0.8, changed={"data.path": "mien.csv"})
    assert refused.value.lines == ["mien.csv: no such file"]
    assert not (tmp_path / "out").exists()

"""A training run with a tracker: what is refused before it, what arrives, and that it may go on with another one."""

import json
import sys

import pytest

from data_pipeline.training_run import run
from tests.started import environment
from tests.started import run as start
from tests.tiny_models import PHOTOS
from tests.training.trackers.conftest import Lines
from vlm_jax.errors import InputError
from vlm_jax.training import trackers
from vlm_jax.training.config import TRACKERS, default_config
from vlm_jax.training.resume_settings import flat, resume_settings


@pytest.fixture
def config(base):
    config = default_config()
    config.model.update(path=str(base), max_visual_tokens=16)
    config.data.path = str(PHOTOS / "photos.json")
    config.batch.update(rows=8, sequence_length=256)
    config.train.update(steps=2, remat="none")
    config.log.project = "food"
    return config


def test_a_run_goes_on_with_another_tracker_which_gets_all_of_it(
    config, tmp_path, mlflow_database, wandb_offline, capfd
):
    from vlm_jax.training.trackers.wandb_files import steps

    for config.log.tracker, config.train.steps in (("mlflow", 2), ("wandb", 3)):
        console = Lines()
        assert run(config, str(tmp_path / "run"), console=console).done == config.train.steps
        assert not any("WARNING" in line for line in console.lines)
    experiment = mlflow_database.get_experiment_by_name("food")
    (tracked,) = mlflow_database.search_runs([experiment.experiment_id])
    assert tracked.info.run_name == tmp_path.name and tracked.info.status == "FINISHED"
    history = mlflow_database.get_metric_history(tracked.info.run_id, "loss")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(point.step, point.value) for point in history] == [(line["step"], line["loss"]) for line in lines[:2]]
    (path,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    assert steps(path) == [1, 2, 3]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["log"]["tracker"] == "wandb"
    assert "".join(capfd.readouterr()) == ""


def test_no_setting_of_the_log_decides_what_is_learned():
    assert not any(key.startswith("log.") for key in flat(resume_settings(default_config())))


def test_an_unknown_tracker_is_refused_with_the_nearest(config, tmp_path):
    config.log.tracker = "wanbd"
    with pytest.raises(
        InputError, match="config.log.tracker is 'wanbd'; wanted wandb, mlflow or empty; did you mean 'wandb'"
    ):
        run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_client_that_is_not_installed_is_refused_before_anything_is_made(config, tmp_path, monkeypatch, tracker):
    config.log.tracker = tracker
    found = trackers.importlib.util.find_spec
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None if name == tracker else found(name))
    with pytest.raises(InputError, match=rf"which is not installed: .*pip install 'vlm-jax\[{tracker}\]'"):
        run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


OFF = """
import sys
from pathlib import Path
from data_pipeline import training_run
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.training import trackers
from vlm_jax.training.config import default_config
from vlm_jax.training.log import Console
config = default_config()
trackers.check(config.log, writes=True)
with trackers.tracked(config, Workdir(Path(sys.argv[1])), Console()) as follower:
    assert follower is None
config.log.tracker = "wandb"
trackers.check(config.log, writes=False)
with trackers.tracked(config, Workdir(Path(sys.argv[1])), Console(silent=True)) as follower:
    assert follower is None
assert not {"wandb", "mlflow"} & set(sys.modules)
"""


def test_off_and_on_hosts_that_do_not_write_no_client_is_loaded(tmp_path):
    (tmp_path / "off.py").write_text(OFF)
    finished = start([sys.executable, tmp_path / "off.py", tmp_path], env=environment())
    assert finished.returncode == 0, finished.stderr

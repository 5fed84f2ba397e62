"""scripts/train.py as a person runs it: exact resume after a kill, Ctrl-C, and one line for each error.

What it refuses, and what a run may go on with, is asked of the function it calls, in this process.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import kills
from config_file import load_config
from data_pipeline import training_run
from tests.started import as_shipped, environment, run
from tests.tiny_models import ONE_LAYER, PHOTOS, save_tiny
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.error_list import printable
from vlm_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "configs" / "photos.py"
STEPS = 8


def command(base, workdir, *more, data=PHOTOS / "photos.json"):
    return [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        f"--config={PAGE}",
        f"--workdir={workdir}",
        f"--config.model.path={base}",
        f"--config.data.path={data}",
        "--config.model.max_visual_tokens=16",
        "--config.batch.rows=2",
        "--config.batch.sequence_length=256",
        f"--config.train.steps={STEPS}",
        "--config.checkpoint.every=3",
        "--config.train.remat=none",
        *more,
    ]


def train(*args, shipped=False, **kwargs):
    return run(command(*args, **kwargs), env=as_shipped() if shipped else environment())


def train_here(base, workdir, *more, devices=1, **kwargs):
    """What `train` does, in this process, with as many of its devices."""
    settings = [word.removeprefix("--config.") for word in command(base, workdir, *more, **kwargs)[4:]]
    config, all_devices = load_config(str(PAGE), [tuple(text.split("=", 1)) for text in settings]), jax.devices()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: all_devices[:devices])
        return training_run.run(config, str(workdir))


def refused(base, workdir, *more, **kwargs):
    """The error lines of a run that is refused."""
    with pytest.raises(InputError) as caught:
        train_here(base, workdir, *more, **kwargs)
    return caught.value.lines


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def parameters(workdir):
    assert run_folder.latest_step(workdir) == STEPS
    return {path: np.asarray(array) for path, array in open_model(str(workdir)).read().items()}


@pytest.fixture(scope="module")
def unstopped(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "unstopped"
    done = train(base, workdir, shipped=True)
    assert done.returncode == 0, done.stderr
    assert len(losses(workdir)) == STEPS
    return workdir, done.stderr


def stop_after(process, workdir, step, number):
    """Sends a signal once so many steps are on record; False when the run was over before."""
    deadline = time.monotonic() + 200
    path = workdir / "metrics.jsonl"
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= step:
            process.send_signal(number)
            process.wait(timeout=120)
            return True
        time.sleep(0.01)
    return False


def test_a_killed_run_goes_on_with_the_same_losses_and_ends_with_the_same_weights(base, unstopped, tmp_path):
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        command(base, workdir), env=as_shipped(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert stop_after(process, workdir, 5, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    before = run_folder.latest_step(workdir)
    assert before is None or before in (3, 6)

    again = train(base, workdir, shipped=True)
    assert again.returncode == 0, again.stderr
    if before:
        assert f"going on from step {before}" in again.stderr
    assert losses(workdir) == losses(unstopped[0])
    expected = parameters(unstopped[0])
    for path, array in parameters(workdir).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


@pytest.mark.evidence
def test_a_run_killed_in_the_middle_of_a_save_loses_no_checkpoint(base, unstopped, tmp_path):
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        command(base, workdir), env=as_shipped(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert kills.stop(process, workdir, "SIGKILL", "in a save", 0.0)
    before = run_folder.latest_step(workdir)
    assert before is None or before < STEPS
    again = train(base, workdir, shipped=True)
    assert again.returncode == 0, again.stderr
    assert (f"going on from step {before}" in again.stderr) == bool(before)
    assert losses(workdir) == losses(unstopped[0])
    expected = parameters(unstopped[0])
    for path, array in parameters(workdir).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_ctrl_c_saves_and_says_how_to_go_on(base, unstopped, tmp_path):
    workdir = tmp_path / "interrupted"
    process = subprocess.Popen(
        command(base, workdir, "--config.train.seed=0"),
        env=as_shipped(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert stop_after(process, workdir, 1, signal.SIGINT)
    said = process.stderr.read()
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    step = run_folder.latest_step(workdir)
    assert step is not None and len(losses(workdir)) == step < STEPS
    assert train(base, workdir, shipped=True).returncode == 0
    assert losses(workdir) == losses(unstopped[0])


def test_a_run_tells_its_device_its_data_and_what_trains(unstopped):
    _, said = unstopped
    assert "running on CPU" in said
    assert "39 examples, 11 images" in said
    assert "padding" in said
    assert "left" in said and "tokens/s" in said
    assert "Traceback" not in said and "WARNING" not in said, said


def test_only_what_trains_changes(base, tmp_path):
    workdir = tmp_path / "run"
    train_here(base, workdir, "--config.train.trainable=frozen_vision", "--config.train.steps=2")
    after = open_model(str(workdir)).read()
    changed = {
        path.split("/")[0]
        for path, before in open_model(str(base)).read().items()
        if not np.array_equal(before, after[path])
    }
    assert changed == {"connector", "decoder", "embedding"}


def test_going_on_with_other_settings_is_refused_with_both_values(base, unstopped):
    (line,) = refused(base, unstopped[0], "--config.optimizer.weight_decay=1.0")
    assert "optimizer.weight_decay = 0.0" in line and "1.0" in line


def test_a_finished_run_is_left_as_it_is_and_says_so_without_compiling(base, unstopped, capsys):
    before = (unstopped[0] / "metrics.jsonl").read_bytes()
    assert not train_here(base, unstopped[0]).trained
    said = capsys.readouterr().err
    assert f"finished: all {STEPS} steps" in said and "compiling" not in said
    assert (unstopped[0] / "metrics.jsonl").read_bytes() == before


def errors(base, workdir, *more, **kwargs):
    """The error lines of a run that is refused; nothing may be left behind."""
    lines = refused(base, workdir, *more, **kwargs)
    assert not workdir.exists()
    return lines


def test_all_errors_of_the_data_are_told_in_one_run(base, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((PHOTOS / "chelsea.jpg").read_bytes()[:2000])
    turns = lambda question, answer: [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]  # noqa: E731
    data = tmp_path / "data.json"
    data.write_text(
        json.dumps(
            [
                {"id": "good", "image": str(PHOTOS / "coffee.jpg"), "conversations": turns("<image>\nWhat?", "Coffee")},
                {"id": "missing", "image": "nowhere.jpg", "conversations": turns("<image>\nWhat?", "Nothing")},
                {"id": "broken", "image": str(broken), "conversations": turns("<image>\nWhat?", "A cat")},
                {"id": "two-marks", "image": str(broken), "conversations": turns("<image><image>\nWhat?", "A cat")},
                {"id": "long", "conversations": turns("word " * 400, "Yes")},
                {"id": "silent", "conversations": turns("What?", " ")},
                {"id": "silent-too", "image": "gone.jpg", "conversations": turns("<image>\nWhat?", "")},
            ]
        )
    )
    done = train(base, tmp_path / "run", data=data)
    assert done.returncode == 1 and "Traceback" not in done.stderr and not (tmp_path / "run").exists()
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 8 and sum("data.on_error=drop" in line for line in lines) == 1
    for name, words in {
        "'silent-too'": ("empty",),
        "gone.jpg": ("no such image", "silent-too"),
        "nowhere.jpg": ("no such image", "missing"),
        "broken.jpg": ("broken",),
        "two-marks": ("2", "1"),
        "silent": ("empty",),
        "'long'": ("raise batch.sequence_length",),
    }.items():
        assert any(name in line and all(word in line for word in words) for line in lines), (name, lines)


def test_examples_that_do_not_fit_a_row_are_listed_with_their_sizes(base, tmp_path):
    lines = printable(errors(base, tmp_path / "run", "--config.batch.sequence_length=64"))
    assert sum("raise batch.sequence_length" in line for line in lines) == 11  # ten, and how many more there are
    (path,) = re.findall(r"every line is in (\S+)$", lines[-1])
    everything = Path(path).read_text()
    assert re.search(r"two-images-0.*raise batch.sequence_length", everything)
    Path(path).unlink()


def test_settings_out_of_range_are_told_together(base, tmp_path):
    lines = errors(base, tmp_path / "run", "--config.batch.rows=0", "--config.train.remat=some")
    assert lines == [
        "config.batch.rows is 0; wanted at least 1",
        "config.train.remat is 'some'; wanted auto, none, products, projections, attention, full, dots or offload",
    ]


def test_a_mesh_that_does_not_fit_is_told_with_its_numbers(base, tmp_path):
    (line,) = errors(base, tmp_path / "run", "--config.mesh.fsdp=3", "--config.mesh.data=1")
    assert "wants 3 devices; this run has 1" in line
    (line,) = errors(base, tmp_path / "rows", "--config.batch.rows=3", devices=8)
    assert "batch.rows 3" in line and "multiple of 8" in line


def test_an_expression_that_matches_no_parameter_is_refused(base, tmp_path):
    (line,) = errors(base, tmp_path / "run", "--config.train.trainable=lora")
    assert "train.trainable 'lora' matches none of the 32 parameters" in line and "frozen_vision" in line


def test_a_folder_with_other_files_is_never_used_for_a_run(base, tmp_path):
    before = (base / "config.json").read_bytes()
    (line,) = refused(base, base)
    assert "holds files that are not a run's" in line
    assert (base / "config.json").read_bytes() == before
    (tmp_path / "file").write_text("")
    (line,) = refused(base, tmp_path / "file")
    assert "is a file" in line


def test_a_start_that_never_reached_a_checkpoint_leaves_nothing_of_its_model_behind(base, tmp_path):
    workdir = tmp_path / "run"
    (workdir / "assets").mkdir(parents=True)
    (workdir / "assets" / "config.json").write_text('{"model_type": "another"}')
    train_here(base, workdir, "--config.train.steps=1")
    assert (workdir / "assets" / "config.json").read_bytes() == (base / "config.json").read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(base, tmp_path):
    workdir = tmp_path / "run"
    *_, last = refused(base, workdir, "--config.optimizer.learning_rate=1e30", "--config.checkpoint.every=1")
    assert (
        "nothing of them is saved. Look at the records" in last and "a lower --config.optimizer.learning_rate" in last
    )
    reported = losses(workdir)
    assert reported[-3:] == [None] * 3 and all(np.isfinite(loss) for loss in reported[:-3])
    # What was saved before the loss broke can be read; the steps it broke at were not saved.
    assert run_folder.latest_step(workdir) == len(reported) - 3
    named = [json.loads(line) for line in (workdir / "skipped.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in named] == [len(reported) - 2, len(reported) - 1, len(reported)]
    assert all("photos.json, entry" in record for entry in named for record in entry["records"])


def test_damaged_and_cut_short_checkpoints_are_told_or_passed_over(base, unstopped, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(unstopped[0], workdir)
    (workdir / "checkpoints" / "99").mkdir()  # a copy that was cut short
    assert run_folder.latest_step(workdir) == STEPS
    for path in (workdir / "checkpoints" / str(STEPS) / "parameters").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError) as error:
        open_model(str(workdir)).read()
    assert f"checkpoints/{STEPS}: damaged: parameters/d/" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_cannot_be_written_is_one_line_and_the_run_goes_on_later(base, unstopped, tmp_path):
    workdir = tmp_path / "run"

    def no_large_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    full = subprocess.run(command(base, workdir), env=as_shipped(), capture_output=True, text=True, timeout=280,
                          preexec_fn=no_large_files)  # fmt: skip
    said = full.stderr.splitlines()
    assert full.returncode == 1 and "Traceback" not in full.stderr, full.stderr
    assert said[-1].startswith(f"error: {workdir}/checkpoints") and "goes on from the last" in said[-1]
    assert "ERROR" not in full.stderr and len(said) < 20
    again = train(base, workdir, shipped=True)
    assert again.returncode == 0, again.stderr
    assert losses(workdir) == losses(unstopped[0])


def test_errors_of_weights_data_and_mesh_are_told_together(base, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(base, model)
    (model / "model.safetensors").unlink()
    two = f"{tmp_path / 'a.csv'},{tmp_path / 'b.csv'}"
    wrong = ("--config.mesh.fsdp=3", "--config.mesh.data=1", "--config.train.trainable=lora")
    lines = errors(model, tmp_path / "run", *wrong, data=two)
    for part in ("no model.safetensors", "wants 3 devices", "train.trainable 'lora'", "a.csv", "b.csv"):
        assert any(part in line for line in lines), (part, lines)


def test_a_run_gone_on_with_otherwise_and_on_errory_data_is_told_both(base, unstopped, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(unstopped[0], workdir)
    settings, data = refused(base, workdir, "--config.train.seed=7", data=tmp_path / "gone.csv")
    assert "was started with train.seed" in settings and "gone.csv" in data


def test_a_finished_run_is_given_more_steps_and_a_lower_rate_and_goes_on(base, unstopped, tmp_path, capsys):
    workdir = tmp_path / "copy"
    shutil.copytree(unstopped[0], workdir)
    more = ("--config.train.steps=10", "--config.optimizer.learning_rate=1e-3", "--config.samples.every=4")
    train_here(base, workdir, *more)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("going on")]
    assert f"from step {STEPS} to 10 with train.steps {STEPS} → 10, optimizer.learning_rate 0.002 → 0.001" in line
    reported = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in reported[:STEPS]] == losses(unstopped[0]) and len(reported) == 10
    assert 0 < reported[8]["learning_rate"] < 1e-3 and reported[9]["learning_rate"] < reported[8]["learning_rate"]
    assert reported[9]["epoch"] > reported[7]["epoch"] > 0
    assert (workdir / "samples" / "000010" / "report.html").is_file()  # every 4 does not divide it
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 10
    assert line in (workdir / "log.txt").read_text()
    (line,) = refused(base, workdir, "--config.train.steps=5", *more[1:])
    assert "has done 10 steps, and 5 are asked for" in line and "compiling" not in capsys.readouterr().err


def test_the_model_of_a_run_may_lie_elsewhere_or_be_gone_but_not_be_another(base, unstopped, tmp_path):
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(base, moved)
    save_tiny(other, **ONE_LAYER, seed=5)
    for name in (moved, os.path.relpath(base), tmp_path / "gone", unstopped[0]):
        again = train_here(name, unstopped[0])
        assert (again.done, again.trained) == (STEPS, False)
    (line,) = refused(other, unstopped[0])
    assert "other weights" in line and f"--config.model.path={unstopped[0]}" in line


def test_what_the_console_said_is_kept_in_the_run_folder(unstopped):
    kept, said = (unstopped[0] / "log.txt").read_text(), unstopped[1]
    for part in ("running on CPU", "compiling the step", "epoch 0.", "learning rate "):
        assert part in kept and part in said


def test_data_that_differ_are_refused_with_the_records_that_do(base, tmp_path):
    entries = json.loads((PHOTOS / "photos.json").read_text())[:8]
    entries = [{**entry, "id": f"r{number}"} for number, entry in enumerate(entries)]
    data, more = tmp_path / "data.json", (f"--config.data.image_root={PHOTOS}", "--config.train.steps=1")
    data.write_text(json.dumps(entries))
    train_here(base, tmp_path / "run", *more, data=data)
    changed = {**entries[1], "conversations": entries[2]["conversations"], "image": entries[2].get("image")}
    data.write_text(json.dumps([*entries[2:], changed, {**entries[0], "id": "new"}]))
    (line,) = refused(base, tmp_path / "run", *more[:1], "--config.train.steps=2", data=data)
    assert "1 added (new); 1 removed (r0); 1 changed (r1); put it back" in line

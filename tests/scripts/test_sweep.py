"""scripts/sweep.py through the real scripts: stopped, killed and gone on with; errors; the pages that ship.

What it refuses, and which cells it has, is asked of the functions it calls, in this process.
"""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import psutil
import pytest

import command_line
from data_pipeline import sweep_cells, sweep_run
from tests.started import environment, run
from tests.tiny_models import PHOTOS, noise, save_tiny
from vlm_jax.checkpoint import run_folder
from vlm_jax.errors import InputError
from vlm_jax.evaluation.sweep import cells_of
from vlm_jax.evaluation.sweep import places as sweep_places
from vlm_jax.models.presets import PRESETS
from vlm_jax.training.selection import select

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "configs" / "ablations").glob("*.py"))
STEPS = 6
PROGRAM = [sys.executable, str(ROOT / "scripts" / "train_and_evaluate.py")]
pytestmark = pytest.mark.timeout(900)  # some processes, nearly all of whose time is loading JAX
PAGE = '''"""A sweep of tiny runs."""

from vlm_jax.evaluation.sweep import sweep_config


def get_config():
    return sweep_config(
        train={train!r},
        set={{
            "model.path": {model!r},
            "model.max_visual_tokens": 8,
            "data.path": {data!r},
            "batch.sequence_length": 64,
            "train.steps": {steps},
            "optimizer.weight_decay": 0.0,
            "checkpoint.every": 1,
        }},
        axes={axes!r},
        seeds={seeds!r},
        benchmark={benchmark!r},
        max_new_tokens=2,
    )
'''
AXES = {
    "amount": {"half": {"data.share": 0.5}},
    "rate": {"0.02": {"optimizer.learning_rate": 2e-2}},
}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A tiny model, a few records with one image, and questions."""
    folder = tmp_path_factory.mktemp("material")
    save_tiny(folder / "base", layers=1, depth=1, global_blocks=(0,), max_visual_tokens=8)
    image = noise(folder, 56, 56)
    for name, count in (("train.csv", 12), ("asked.csv", 4)):
        rows = "".join(f"{name}-{n},{image},What is {n}?,{'Yes' if n % 2 else 'No'}\n" for n in range(count))
        (folder / name).write_text(f"id,image,question,answer\n{rows}")
    return folder


def page(material, path, axes=AXES, seeds=(0, 1), **more):
    stored = {
        "train": str(ROOT / "configs" / "photos.py"),
        "model": str(material / "base"),
        "data": str(material / "train.csv"),
        "benchmark": str(material / "asked.csv"),
        "steps": STEPS,
        **more,
    }
    path.write_text(PAGE.format(axes=axes, seeds=seeds, **stored))
    return path


def command(config, output, *more):
    return [sys.executable, str(ROOT / "scripts" / "sweep.py"), f"--config={config}", f"--output={output}", *more]


def sweep(config, output, *more):
    return run(command(config, output, *more), cwd=ROOT, env=environment())


def cells(config, output, *changed, what=sweep_cells.folders_of):
    """The cells of a page with settings that differ, as `folders_of` has them; or what else is done in this process."""
    loaded = command_line.load_config(str(config), [tuple(text.split("=", 1)) for text in changed])
    return what(loaded, output, program=PROGRAM, load=command_line.load_config)


def refused(*args):
    """The error lines of a sweep that is refused."""
    with pytest.raises(InputError) as caught:
        cells(*args)
    return caught.value.lines


def begin(config, output):
    """A sweep that runs in a session of its own, as a terminal's job does."""
    return subprocess.Popen(
        command(config, output), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for(met, process):
    deadline = time.monotonic() + 120
    while not met():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def times(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_ctime_ns) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def finished(material, tmp_path_factory):
    """A sweep of two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    config, output = page(material, folder / "page.py"), folder / "out"
    done = sweep(config, output)
    assert done.returncode == 0, done.stderr
    return config, output, [cell.name for cell in cells_of(command_line.load_config(str(config)))], done


@pytest.fixture(scope="module")
def interrupted(material, tmp_path_factory):
    """The same: stopped by Ctrl-C in its first cell, killed in its second, then let run to its end."""
    folder = tmp_path_factory.mktemp("interrupted")
    config, output = page(material, folder / "page.py"), folder / "out"
    made = output / "cells"
    first, second = names = [cell.name for cell in cells_of(command_line.load_config(str(config)))]

    process = begin(config, output)
    wait_for(lambda: run_folder.latest_step(made / first / "run"), process)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "the same command goes on from here" in told and "Traceback" not in told
    assert not (made / first / "evaluation" / "report.json").exists()

    process = begin(config, output)
    wait_for(lambda: run_folder.latest_step(made / second / "run"), process)
    (child,) = psutil.Process(process.pid).children()
    child.suspend()
    process.kill()
    process.communicate()
    before = {path: when for path, when in times(made / first).items() if path.is_file()}
    # The child still writes into its cell.
    refused = sweep(config, output)
    assert refused.returncode == 1 and "another process is sweeping in this folder" in refused.stderr, refused.stderr
    family = [child, *child.children(recursive=True)]
    child.kill()
    assert not psutil.wait_procs(family, timeout=60)[1]

    done = sweep(config, output)
    assert done.returncode == 0, done.stderr
    assert {path: when for path, when in times(made / first).items() if path in before} == before
    return config, output, names, done


@pytest.mark.evidence
def test_the_same_command_goes_on_and_runs_nothing_twice(interrupted):
    _, output, (first, second), done = interrupted
    assert "1 of 2 cells are finished already" in done.stderr
    assert "[1/2]" not in done.stderr and "[2/2] amount half, rate 0.02, seed 1: begun" in done.stderr
    assert re.search(r"\[2/2\] .*% of 4, in 0:00:\d\d", done.stderr)
    for name in (first, second):
        assert "going on from step" in (output / "cells" / name / "cell.log").read_text()


@pytest.mark.evidence
def test_an_interrupted_cell_comes_to_what_an_uninterrupted_one_does(interrupted, tmp_path):
    config, output, (_, second), _ = interrupted
    told = sweep(config, output, "--dry_run").stdout
    (cell,) = re.findall(r"^amount half, rate 0.02, seed 1 \(finished\)\n  (.*)$", told, re.M)
    words = [word.replace(str(output / "cells" / second), str(tmp_path)) for word in shlex.split(cell)]
    done = run(words, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr

    def losses(folder):
        return [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]

    assert losses(tmp_path) == losses(output / "cells" / second) and len(losses(tmp_path)) == STEPS
    told_answers = tmp_path / "evaluation" / "predictions.jsonl"
    answers = told_answers.read_bytes()
    assert answers == (output / "cells" / second / "evaluation" / "predictions.jsonl").read_bytes()

    # As it is left by a stop in the middle of the questions: its training is not for other settings, nor done again.
    report = tmp_path / "evaluation" / "report.json"
    report.unlink()
    told_answers.write_bytes(b"".join(answers.splitlines(keepends=True)[:2]))
    trained = times(tmp_path / "run" / "checkpoints")
    other = run([*words, "--config.optimizer.weight_decay=0.5"], cwd=ROOT, env=environment())
    assert other.returncode == 1 and "was started with optimizer.weight_decay = 0.0" in other.stderr
    assert not report.exists()
    again = run(words, cwd=ROOT, env=environment())
    assert again.returncode == 0 and report.is_file(), again.stderr
    assert told_answers.read_bytes() == answers and len(losses(tmp_path)) == STEPS
    assert times(tmp_path / "run" / "checkpoints") == trained


def test_everything_ends_in_one_table_and_one_plot(finished):
    _, output, names, done = finished
    table = (output / "table.md").read_text()
    assert done.stdout == table
    rows = [[part.strip() for part in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")][2:]
    assert [row[:3] for row in rows] == [["half", "0.02", "2"]]
    for row in rows:
        low, high = (float(part.rstrip("%")) for part in row[4].split(" – "))
        assert low <= float(row[3].rstrip("%")) <= high and low < high
        assert row[5] in ("seeds", "questions") and len(row[6].split(", ")) == 2 and row[7] == "4"
    results = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [result["cell"] for result in results] == names
    assert {result["steps"] for result in results} == {STEPS}
    stored = list(csv.DictReader((output / "table.csv").open()))
    for row, (amount, rate) in zip(stored, [(a, r) for a in AXES["amount"] for r in AXES["rate"]], strict=True):
        scores = [r["mean"] for r in results if r["axes"] == {"amount": amount, "rate": rate}]
        assert float(row["mean"]) == sum(scores) / 2 and int(row["seeds"]) == 2
    assert (output / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_finished_sweep_runs_nothing_and_other_settings_are_refused(finished, material):
    config, output, _, done = finished
    made = times(output / "cells")
    again = sweep(config, output)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert again.stderr == "2 of 2 cells are finished already\n"

    assert refused(config, output, "set.optimizer.weight_decay=0.5", "seeds=0,1,2") == [
        f"{output}: 2 cells were made with other settings: amount-half_rate-0.02_seed-0 with "
        "optimizer.weight_decay = 0.0, which is now 0.5. Give those settings again, or take another --output"
    ]
    asked = (material / "asked.csv").read_text()
    (material / "asked.csv").write_text(asked.replace("What is 3?", "What is three?"))
    (line,) = refused(config, output)
    (material / "asked.csv").write_text(asked)
    assert "with benchmark = {'asked.csv': " in line
    assert times(output / "cells") == made

    fewer = cells(config, output, "seeds=1", what=sweep_run.run)
    assert "over questions: bootstrap of the one seed" in fewer.table


@pytest.mark.evidence
def test_a_cell_that_fails_is_told_and_the_others_go_on(material, tmp_path):
    axes = {"tokens": {"8": {"batch.sequence_length": 8}, "64": {"batch.sequence_length": 64, **AXES["rate"]["0.02"]}}}
    config = page(material, tmp_path / "page.py", axes=axes, seeds=(0,))
    config.write_text(config.read_text().replace('"batch.sequence_length": 64,\n            "train', '"train'))
    done = sweep(config, tmp_path / "out")
    assert done.returncode == 1
    assert "[1/2] tokens 8, seed 0: FAILED\n    error: " in done.stderr
    assert re.search(r"\[2/2\] tokens 64, seed 0: \d+\.\d% of 4, in 0:00:\d\d; about 0:00:\d\d left", done.stderr)
    *_, count, reason = done.stderr.splitlines()
    assert count == "error: 1 of 2 cells failed; the same command tries them again"
    assert reason.startswith("error: tokens-8_seed-0: error: ") and "raise batch.sequence_length" in reason
    assert re.search(r"\| 8 +\| 0 of 1 \| – ", done.stdout) and re.search(r"\| 64 +\| 1 +\| \d", done.stdout)


def test_settings_that_no_training_has_are_told_together_before_any_cell_runs(material, tmp_path):
    axes = {
        "amount": {"half": {"data.shar": 0.5}, "all": {"data.share": 1.0}},
        "rate": {"high": {"optimizer.lerning_rate": 1.0}, "none": {"optimizer.learning_rate": "much"}},
    }
    config = page(material, tmp_path / "page.py", axes=axes, benchmark=str(tmp_path / "gone.csv"))
    metric, share, rate, much, gone = refused(config, tmp_path / "out", "metric=bleu")
    assert not (tmp_path / "out").exists()
    assert metric.startswith("config.metric is 'bleu'; there are exact, normalised, contains, ")
    assert share == "config.axes.amount, 'half': data.shar: no such setting; did you mean config.data.share?"
    assert rate.endswith("did you mean config.optimizer.learning_rate?")
    assert much == "config.axes.rate, 'none': optimizer.learning_rate: needs a number (float), not 'much'"
    assert "gone.csv" in gone

    values = page(material, tmp_path / "values.py", axes={"amount": {"none": {"data.share": 0.0}}})
    done = sweep(values, tmp_path / "out")
    assert (done.returncode, done.stderr) == (1, "error: config.data.share is 0.0; wanted a share above 0, up to 1\n")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_cells_and_commands_and_makes_nothing(material, tmp_path):
    done = sweep(page(material, tmp_path / "page.py"), tmp_path / "out", "--dry_run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and lines[2] == "amount half, rate 0.02, seed 1 (new)"
    assert "scripts/train_and_evaluate.py" in lines[1] and "--config.data.share=0.5" in lines[1]
    assert not (tmp_path / "out").exists()


def test_folders_and_configs_of_something_else_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    (line,) = refused(SHIPPED[0], tmp_path)
    assert "holds files that are not a sweep's" in line
    (line,) = refused(ROOT / "configs" / "photos.py", tmp_path / "out")
    assert "the config is no sweep" in line


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_page_is_in_order(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    data, asked = PHOTOS / "photos.json", PHOTOS / "same_question.json"
    shipped = command_line.load_config(str(path))
    # Of some pages the data differ from cell to cell.
    places = ["set", *(f"axes.{axis}.{label}" for axis in shipped.axes for label in shipped.axes[axis])]
    named = [place for place, own in zip(places, sweep_places(shipped).values(), strict=True) if "data.path" in own]
    assert named
    changes = [f"{place}.data.path={data}" for place in named]
    for place, own in zip(places, sweep_places(shipped).values(), strict=True):
        changes += [f"{place}.data.mixture.{part}.path={data}" for part in own.get("data.mixture", ())]
    folders = cells(path, tmp_path / "out", *changes, f"benchmark={asked}")
    assert f"scripts/sweep.py --config=configs/ablations/{path.name}" in path.read_text(encoding="utf-8")
    assert {folder.progress for folder in folders} == {"new"} and len({folder.cell.seed for folder in folders}) == 3
    assert len(folders) == len(cells_of(shipped))


def test_each_way_of_training_trains_what_it_says():
    config = command_line.load_config(str(ROOT / "configs" / "ablations" / "full_lora_qlora.py"))
    trained = {}
    for cell in cells_of(config)[:3]:
        changed = [(key, str(value)) for key, value in cell.settings.items()]
        training = command_line.load_config(str(ROOT / config.train), changed)
        trained[cell.labels["training"]] = select(training, PRESETS["3b"], jnp.bfloat16)
    assert not trained["full"].quantised and len(trained["full"].trainable) == len(trained["full"].abstract)
    assert len(trained["LoRA"].trainable) == len(trained["QLoRA"].trainable) == 8  # four layers, a and b
    assert not trained["LoRA"].quantised and trained["QLoRA"].quantised

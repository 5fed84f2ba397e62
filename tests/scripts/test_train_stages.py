"""A run of two stages with all that can be watched: held-out loss, samples, curves, a profile, and exact resume."""

import json
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import vlm_jax
from benchmarks import kills
from tests.started import environment, run
from tests.tiny_models import PHOTOS, user
from vlm_jax.checkpoint import run_folder
from vlm_jax.checkpoint.model_source import open_model

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
FAMILY = "qwen3_vl"


def command(base, workdir, *more):
    return [
        sys.executable,
        str(ROOT / "scripts" / "train.py"),
        f"--config={ROOT / 'configs' / 'photos.py'}",
        f"--workdir={workdir}",
        f"--config.model.path={base}",
        f"--config.data.path={PHOTOS / 'photos.json'}",
        f"--config.validation.path={PHOTOS / 'same_question.json'}",
        "--config.validation.every=2",
        "--config.model.max_visual_tokens=16",
        "--config.batch.rows=2",
        "--config.mesh.data=1",
        "--config.mesh.fsdp=2",
        "--config.batch.sequence_length=256",
        f"--config.train.steps={STEPS}",
        "--config.train.first.share=0.5",
        "--config.train.first.learning_rate=0.01",
        "--config.lora.rank=2",
        "--config.lora.dropout=0.1",
        "--config.checkpoint.every=2",
        "--config.checkpoint.keep=1",
        "--config.samples.every=4",
        "--config.samples.count=2",
        "--config.samples.max_new_tokens=4",
        *more,
    ]


@pytest.fixture(scope="module")
def watched(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "watched"
    done = run(command(base, workdir, "--config.log.profile=4"), env=environment(devices=2))
    assert done.returncode == 0, done.stderr
    return workdir, done.stderr


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_connector_trains_first_and_then_the_adapters(base, watched):
    workdir, said = watched
    assert "parameters for 4 steps, then" in said and said.count("compiling the step") == 2
    told = lines(workdir / "metrics.jsonl")
    assert len(told) == STEPS
    rates = [line["learning_rate"] for line in told]
    assert max(rates[:4]) == pytest.approx(0.01, rel=0.2) and max(rates[4:]) == pytest.approx(2e-3, rel=0.2)
    # What was trained in either stage is saved; the base's other weights are not.
    source = open_model(str(workdir))
    own = set(source.trained_beside_adapters())
    assert own and all(path.startswith("connector/") for path in own)
    before = open_model(str(base)).read()
    after = source.read()
    assert {path for path in before if not np.array_equal(before[path], after[path])} == own
    adapters = source.read_adapters()
    assert all(np.abs(np.asarray(array)).max() > 0 for array in adapters.values())


def test_what_is_watched_is_written_down(watched):
    workdir, said = watched
    held_out = lines(workdir / "validation.jsonl")
    assert [line["step"] for line in held_out] == [2, 4, 6, 8]
    assert held_out[-1]["loss"] < held_out[0]["loss"]
    assert f"validation loss {held_out[-1]['loss']:.4f}" in said
    page = (workdir / "samples" / "000004" / "report.html").read_text()
    assert "data:image" in page and len(lines(workdir / "samples" / "000004" / "predictions.jsonl")) == 2
    assert list((workdir / "profile").rglob("*.xplane.pb"))
    line = lines(workdir / "metrics.jsonl")[0]
    assert line["text_tokens_per_second"] > 0 and line["visual_tokens_per_second"] > 0
    assert line["compiles"] == 2 and line["mfu"] is None and line["memory_gib"] is None  # nobody knows a CPU's peak
    assert {"data_wait", "padding", "patch_padding", "gradient_norm"} <= line.keys()


def test_tensorboard_draws_the_curves(watched):
    tags = {}
    for path in (watched[0] / "tensorboard").iterdir():
        data = path.read_bytes()
        while data:  # records of a length, its checksum, the event and its checksum
            (length,) = struct.unpack("<Q", data[:8])
            event = Event.FromString(data[12 : 12 + length])
            for value in event.summary.value:
                tags.setdefault(value.tag, {})[event.step] = value.simple_value
            data = data[16 + length :]
    told = lines(watched[0] / "metrics.jsonl")
    assert tags["loss"] == {line["step"]: pytest.approx(line["loss"]) for line in told}
    assert {"learning_rate", "gradient_norm", "validation_loss", "tokens_per_second"} <= tags.keys()
    assert set(tags["validation_loss"]) == {2, 4, 6, 8}


def test_the_last_and_the_best_checkpoint_are_kept_and_both_can_be_loaded(watched):
    workdir, _ = watched
    held_out = {line["step"]: line["loss"] for line in lines(workdir / "validation.jsonl")}
    best = min(held_out, key=held_out.get)
    steps = {int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()}
    assert steps == {STEPS, best}
    asked = [user("What is it called?", str(PHOTOS / "chelsea.jpg"))]
    assert run_folder.Checkpoints(workdir, read_only=True).best() == (best, pytest.approx(held_out[best]))
    last = vlm_jax.load(workdir).logits(asked)
    np.testing.assert_array_equal(vlm_jax.load(workdir / "checkpoints" / str(STEPS)).logits(asked), last)


@pytest.mark.evidence
def test_a_run_killed_at_the_change_of_stages_goes_on_exactly(base, watched, tmp_path):
    workdir = tmp_path / "killed"
    process = subprocess.Popen(
        command(base, workdir), env=environment(devices=2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and run_folder.latest_step(workdir) != STEPS // 2:
        time.sleep(0.01)  # or the waiting itself takes half of the core that they share
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert run_folder.latest_step(workdir) == STEPS // 2 and kills.steps_told(workdir) < STEPS
    again = run(command(base, workdir), env=environment(devices=2))
    assert again.returncode == 0, again.stderr
    assert f"going on from step {STEPS // 2}" in again.stderr and again.stderr.count("compiling the step") == 1
    # What was best is known after the kill too, and is still there.
    one, other = (run_folder.Checkpoints(place, read_only=True) for place in (workdir, watched[0]))
    assert one.best() == other.best() is not None and one.holds(one.best()[0])
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert [line["loss"] for line in lines(workdir / name)] == [line["loss"] for line in lines(watched[0] / name)]
    expected = {**open_model(str(watched[0])).read(), **open_model(str(watched[0])).read_adapters()}
    found = {**open_model(str(workdir)).read(), **open_model(str(workdir)).read_adapters()}
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)

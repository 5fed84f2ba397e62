"""`make quickstart` at a small size: every stage, stopped and gone on with, and the export beside transformers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vlm_jax
from data_pipeline.corpus.drawn import objects
from tests.started import environment, run
from tests.tiny_models import reference_inputs
from vlm_jax.checkpoint import description, hf_folder

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
SMALL = [
    "--objects=factor=1",
    "--objects=held_out=1",
    "--scenes=drill=8",
    "--scenes=held_out=17",
    "--train=train.steps=6",
    "--train=train.remat=full",  # layers in a loop: the four of the base are compiled as one
    "--train=data.share=0.1",
    "--train=batch.rows=2",
    "--train=batch.sequence_length=128",
]


def command(output):
    return [sys.executable, str(ROOT / "scripts" / "quickstart.py"), f"--output={output}", *SMALL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, what it said) of a quickstart."""
    output = tmp_path_factory.mktemp("quickstart") / "out"
    done = run(command(output), cwd=ROOT, env=environment(), timeout=280)
    assert done.returncode == 0, done.stderr
    return output, done


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """(folder, what the second call said) of a quickstart that was stopped while it trained."""
    output = tmp_path_factory.mktemp("interrupted") / "out"
    first = subprocess.Popen(
        command(output), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline, metrics = time.monotonic() + 200, output / "run" / "metrics.jsonl"
    while first.poll() is None and time.monotonic() < deadline:
        if metrics.exists() and metrics.stat().st_size:  # made before the first step, and filled after it
            break
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    _, told = first.communicate(timeout=60)
    assert first.returncode == 130, told
    assert "the same command goes on from here" in told and "Traceback" not in told
    assert any((output / "run" / "checkpoints").iterdir())  # it was given the time to save
    second = run(command(output), cwd=ROOT, env=environment())
    assert second.returncode == 0, second.stderr
    return output, second


@pytest.mark.evidence
def test_stages_that_were_done_are_not_done_again(interrupted):
    _, second = interrupted
    for number, name in ((1, "draw the objects"), (2, "draw plain scenes"), (3, "ask the base")):
        assert f"[{number}/7] {name}: done before" in second.stderr
    assert "[4/7] train: scripts/train.py" in second.stderr
    assert "going on from step" in second.stderr


def test_stopped_while_processes_draw_it_ends_with_one_line(tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "quickstart.py"), f"--output={output}", "--objects=factor=15"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(output.glob("objects/images/*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal's Ctrl-C does
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 130 and not printed
    begun, stopped = told.splitlines()
    assert begun.startswith("[1/7] draw the objects: scripts/generate_corpus.py")
    assert stopped == "stopped; the same command goes on from here"


def test_the_table_shows_both_splits_the_scenes_and_the_swapped_images(finished):
    output, second = finished
    after = json.loads((output / "after" / "report.json").read_text())
    assert {name: part["n"] for name, part in after["by"]["split"].items()} == {
        "synthetic": 120,
        "photo": 120,
        "held_out": 17,
    }
    for line in ("unseen views", "on photographs", "must not be forgotten", "with the wrong images"):
        assert line in second.stdout
    assert re.search(r"The answers come from the images|NO CLAIM", second.stdout)
    assert "GB of memory" in second.stderr and "all stages took" in second.stderr
    assert len(re.findall(r"^  \S*python\S* ", second.stdout, re.M)) == 3  # three commands to go on with
    page = (output / "after" / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page and "said before" in page


def test_a_second_quickstart_changes_nothing(finished):
    output, _ = finished
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in output.rglob("*")}
    again = run(command(output), cwd=ROOT, env=environment(), timeout=60)
    assert again.returncode == 0 and again.stderr.count("done before") == 7
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in output.rglob("*")} == before


def test_only_what_is_missing_is_made_again_and_other_settings_are_refused(finished):
    output, _ = finished
    stages = (output / "stages.json").read_bytes()
    other = run([*command(output), "--train=train.seed=1"], cwd=ROOT, env=environment())
    assert other.returncode == 1 and "holds a quickstart with another --train; take another" in other.stderr
    assert (output / "stages.json").read_bytes() == stages
    (output / "swapped" / "report.json").unlink()
    (output / "hf" / "config.json").unlink()
    done = run(command(output), cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done before") == 5
    assert (output / "swapped" / "report.json").is_file() and (output / "hf" / "config.json").is_file()


def test_a_damaged_account_of_the_stages_is_told(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "stages.json").write_text('{"seconds": 1}')
    done = run(command(folder), cwd=ROOT, env=environment())
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "stages.json" in done.stderr


def test_the_export_answers_as_transformers_does(finished):
    import torch
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    output, _ = finished
    model = AutoModelForImageTextToText.from_pretrained(output / "hf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(output / "hf")
    ours = vlm_jax.load(output / "hf")
    conversations = []
    for folder, split in (("objects", "synthetic"), ("objects", "photo"), ("scenes", "held_out")):
        lines = (output / folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines[:: len(lines) // 17][:17]:
            message = json.loads(line)["messages"][0]
            message["content"][0]["image"] = str(output / folder / message["content"][0]["image"])
            conversations.append([message])
    conversations = conversations[:50]
    assert len(conversations) == 50
    printed = ours.generate(conversations, max_new_tokens=16)
    for conversation, answer in zip(conversations, printed, strict=True):
        inputs = reference_inputs(output / "hf", tokenizer, conversation, generation_prompt=True)
        with torch.no_grad():
            tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)
        expected = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == expected, conversation
    assert len(set(printed)) > 5


def test_the_shipped_base_is_small_and_an_ordinary_folder():
    config = description.read_config(BASE)
    shapes = hf_folder.read_parameters(BASE, config)
    assert 2e6 <= sum(array.size for array in shapes.values()) <= 5e6
    assert sum(path.stat().st_size for path in BASE.iterdir()) <= 10e6
    text = (BASE / "README.md").read_text(encoding="utf-8")
    for thing in objects.CATALOGUE:
        assert thing.facts["name"][0] not in text

"""A tiny teacher that has learned to write about photographs and to answer; its student, and settings for both."""

import fcntl
import functools
import os
import shutil
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import vlm_jax
from data_pipeline.parity import prompts
from data_pipeline.parity.settings import parity_config
from data_pipeline.records import Record, write_records
from data_pipeline.training_run import run
from tests.consoles import Lines
from tests.tiny_models import PHOTOS, save_tiny

NAMES = ("astronaut", "chelsea", "coffee", "dahlia", "moon", "rocket", "temple", "page")
MPA = Path(__file__).parents[2] / "data" / "mpa"
QUESTION = "What is its name?"
SUFFIX = "\nOne word."


def turns(image, words, answer):
    shown = [{"type": "image", "image": str(image)}, {"type": "text", "text": words}]
    return [{"role": "user", "content": shown}, {"role": "assistant", "content": answer}]


def training(path, **train):
    return {
        "model": {"path": str(path), "max_visual_tokens": 16},
        "batch": {"rows": 8, "sequence_length": 128},
        "train": {"epochs": 0, "remat": "none", **train},
        "optimizer": {"name": "muon", "learning_rate": 3e-3},
    }


def photo(name):
    return next(PHOTOS.glob(f"{name}.*"))


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Folders: teacher, student, images; questions.jsonl to be tested on. Made once for all processes of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # which the processes have in common
    folder = shared / "parity-world"
    with (shared / "parity-world.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "teacher" / "config.json").is_file():
            shutil.rmtree(folder, ignore_errors=True)  # of a test that was ended while it was made
            folder.mkdir()
            make_world(folder)
    return folder


def make_world(folder):
    save_tiny(folder / "start", layers=2, depth=1, global_blocks=(0,), max_visual_tokens=16)
    save_tiny(folder / "student", layers=1, depth=1, global_blocks=(0,), max_visual_tokens=16, seed=1)
    (folder / "images").mkdir()
    ask, lessons, tests = prompts.read("objects", "prompt").rendered(""), [], []
    for name in NAMES:
        shutil.copy(photo(name), folder / "images")
        pair = f"Question: {QUESTION}\nAnswer: {name}"
        lessons.append(Record(f"write {name}", turns(photo(name), ask, pair)))
        lessons.append(Record(f"say {name}", turns(photo(name), QUESTION + SUFFIX, name)))
        tests.append(Record(name, turns(photo(name), QUESTION, name)[:1], answers=[name]))
    write_records(folder / "lessons.jsonl", lessons)
    write_records(folder / "questions.jsonl", tests)
    config = parity_config(training=training(folder / "start", steps=60)).training
    config.data.path = str(folder / "lessons.jsonl")
    run(ConfigDict(config.to_dict()), str(folder / "run"), console=Lines())
    vlm_jax.export(folder / "run", folder / "teacher", "hf")


@pytest.fixture(scope="session")
def config_of_world(world):
    """Makes settings of an alignment in that world, changed by what is given."""
    return functools.partial(config_in, world)


def config_in(world, **changes):
    teacher = {"kind": "local", "model": str(world / "teacher"), "rows": 8, "max_output_tokens": 24}
    own = {
        "images": {"path": str(world / "images")},
        "annotate": {"prompt": "objects", "max_output_tokens": 24, "temperature": 0.0},
        "ask": {"suffix": SUFFIX, "max_output_tokens": 8, "rows": 8},
        "training": training(world / "student", steps=4),
        "evaluate": {"benchmark": str(world / "questions.jsonl"), "max_new_tokens": 8},
        "teachers": {"text": teacher},
    }
    for group, values in changes.items():
        own[group] = {**own.get(group, {}), **values} if isinstance(values, dict) else values
    return parity_config(**own)

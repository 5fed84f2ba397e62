"""What stops a run in the middle loses nothing: its last sound step is saved, and going on from there is exact."""

import copy
import dataclasses
import functools
import json

import grain
import jax
import numpy as np
import pytest

from tests.training.tiny_run import make_trainer
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.run_folder import Checkpoints, latest_step
from vlm_jax.checkpoint.workdir import open_workdir
from vlm_jax.errors import InputError
from vlm_jax.training import loop
from vlm_jax.training.hooks import Measures

STEPS = 6


class Steps(grain.DatasetIterator):
    """One batch again and again, with other weights every time; `faulty` are steps, counted from 1."""

    def __init__(self, batch, *, unreadable=(), not_finite=()):
        super().__init__()
        self.batch, self.unreadable, self.not_finite = batch, unreadable, not_finite
        self.number = 0

    def __next__(self):
        self.number += 1
        if self.number in self.unreadable:
            raise InputError("photos.json, entry 3: a.png: no such image")
        weights = self.batch.loss_weights * (1 + self.number % 3 * (np.arange(len(self.batch.tokens)) % 2)[:, None])
        if self.number in self.not_finite:
            weights = weights * np.float32("nan")
        return dataclasses.replace(self.batch, loss_weights=weights.astype(np.float32))

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


@functools.cache
def steps_of(base):
    """A trainer whose steps all runs here take: they are traced once."""
    trainer = make_trainer(base, 1, (-1, 1, 1), {})
    trainer.steps = STEPS
    return trainer


class Run:
    """A folder that is trained in, and gone on with, as scripts/train.py does."""

    def __init__(self, base, batch, folder, **settings):
        self.base, self.batch, self.folder = base, jax.tree.map(lambda rows: rows[:2], batch), folder
        self.trainer = copy.copy(steps_of(base))  # what differs here is nothing that a step is compiled for
        self.config = copy.deepcopy(self.trainer.config)
        for key, value in {"train__max_skipped_steps": 2, **settings}.items():
            section, name = key.split("__")
            self.config[section][name] = value

    def train(self, *, measures=None, sample=None, **faulty):
        batches, done = Steps(self.batch, **faulty), latest_step(self.folder)
        workdir = open_workdir(str(self.folder))
        with workdir.writing(first=True, done=done):
            checkpoints = Checkpoints(self.folder)
            if done is None:
                source = open_model(str(self.base))
                state = self.trainer.start(source.read(place=self.trainer.place, sharding=self.trainer.sharding))
            else:
                state = self.trainer.restore(checkpoints, done, batches, base=None)
            try:
                loop.run(
                    self.config,
                    self.trainer,
                    workdir,
                    batches,
                    state,
                    shapes=[self.batch],
                    checkpoints=checkpoints,
                    settings={"images": {}},
                    done=done or 0,
                    measures=measures,
                    sample=sample,
                )
            finally:
                checkpoints.close()
        return self

    @property
    def losses(self):
        return [json.loads(line)["loss"] for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def weights(self):
        checkpoints = Checkpoints(self.folder, read_only=True)
        try:
            return checkpoints.restore_parameters(checkpoints.latest(), None)
        finally:
            checkpoints.close()


def same(one, other):
    assert one.losses == other.losses
    found, expected = one.weights(), other.weights()
    for path, array in expected.items():
        np.testing.assert_array_equal(found[path], array, err_msg=path)


@pytest.fixture(scope="module")
def unstopped(base, batch, tmp_path_factory):
    return Run(base, batch, tmp_path_factory.mktemp("run") / "unstopped").train()


@pytest.mark.parametrize("step", [1, 4, STEPS])
def test_what_cannot_be_read_any_more_stops_a_run_that_is_saved_first(base, batch, unstopped, tmp_path, step):
    run = Run(base, batch, tmp_path / "run")
    with pytest.raises(InputError, match="entry 3: a.png: no such image"):
        run.train(unreadable=[step])
    assert latest_step(run.folder) == (step - 1 or None)
    same(run.train(), unstopped)  # put back, it goes on


@pytest.mark.parametrize(("faulty", "allowed", "saved"), [((4, 5, 6), 2, 3), ((3, 4), 1, 2), ((1, 2, 3), 2, None)])
def test_losses_that_are_not_finite_stop_a_run_at_the_last_that_was(
    base, batch, unstopped, tmp_path, faulty, allowed, saved
):
    run = Run(base, batch, tmp_path / "run", train__max_skipped_steps=allowed)
    with pytest.raises(InputError, match="the loss is nan"):
        run.train(not_finite=faulty)
    assert latest_step(run.folder) == saved
    same(run.train(), unstopped)  # with a lower learning rate, say; here with sound numbers


def test_a_step_that_was_taken_meanwhile_is_saved_with_the_one_before_it_skipped(base, batch, tmp_path):
    skips, stops = (
        Run(base, batch, tmp_path / "skips"),
        Run(base, batch, tmp_path / "stops", train__max_skipped_steps=1),
    )
    skips.train(not_finite=[4])
    with pytest.raises(InputError, match="step 4: the loss is nan"):
        stops.train(not_finite=[4])
    assert latest_step(stops.folder) == 5  # it was under way when the loss of step 4 was read
    same(stops.train(not_finite=[4]), skips)


def test_checkpoints_that_are_kept_are_not_written_twice(base, batch, tmp_path):
    run = Run(base, batch, tmp_path / "run", train__max_skipped_steps=2, checkpoint__every=3)
    with pytest.raises(InputError):
        run.train(not_finite=[4, 5, 6])
    with pytest.raises(InputError):
        run.train(not_finite=[4, 5, 6])
    assert latest_step(run.folder) == 3


@pytest.mark.parametrize(("every", "saved"), [(4, 4), (0, STEPS)])
def test_held_out_examples_that_cannot_be_read_any_more_lose_no_step(base, batch, unstopped, tmp_path, every, saved):
    def gone(parameters):
        raise InputError("held_out.json, entry 1: a.png: no such image")

    run = Run(base, batch, tmp_path / "run", validation__every=every)
    with pytest.raises(InputError, match=r"held_out.json, entry 1"):
        run.train(measures=Measures(gone))
    assert latest_step(run.folder) == saved
    if saved < STEPS:
        same(run.train(measures=Measures(lambda parameters: 1.0)), unstopped)
    else:
        assert run.losses == unstopped.losses


def test_a_sample_that_cannot_be_written_loses_no_step(base, batch, unstopped, tmp_path):
    def broken(step, parameters):
        raise InputError("samples: cannot be written")

    run = Run(base, batch, tmp_path / "run", samples__every=4)
    with pytest.raises(InputError, match="samples: cannot"):
        run.train(sample=broken)
    assert latest_step(run.folder) == 4
    same(run.train(), unstopped)

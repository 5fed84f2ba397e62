"""Eight steps are the same steps on one device, on meshes of eight, and on two processes of four devices each."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import grain
import jax
import numpy as np
import pytest

from tests.started import environment
from tests.training.tiny_run import PROPORTIONAL, compiled, moved, run, same_moves
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.errors import InputError
from vlm_jax.parallel import hosts
from vlm_jax.parallel import mesh as meshes

ROOT = Path(__file__).resolve().parents[2]
STEPS = 8
FAMILY = "qwen3_vl"
SETTINGS = PROPORTIONAL
UNROLLED = {"train__remat": "none"}


def started_from(base):
    return {path: np.asarray(array) for path, array in open_model(str(base)).read().items()}


@pytest.fixture(scope="module")
def single(base, batch):
    _, losses, *_, moves = run(base, batch, STEPS, **SETTINGS)
    assert losses[-1] < losses[0] - 1
    return losses, moves


@pytest.mark.parametrize(
    "base, mesh, remat",
    # data=8 is that of two processes
    [("qwen3_vl", (1, 8, 1), "full"), ("qwen2_5_vl", (1, 4, 2), "none")],
    ids=["fsdp=8", "fsdp=4,tensor=2, windows, layers unrolled"],
    indirect=["base"],
)
def test_every_mesh_takes_the_same_steps(base, batch, single, mesh, remat):
    _, losses, *_, moves = run(base, batch, STEPS, devices=8, mesh=mesh, train__remat=remat, **SETTINGS)
    np.testing.assert_allclose(losses, single[0], atol=1e-4)
    same_moves(moves, single[1])


class Position(grain.DatasetIterator):
    """A data iterator that knows where it is, and nothing else."""

    number = 0

    def __next__(self):
        raise StopIteration

    def get_state(self):
        return {"number": self.number}

    def set_state(self, state):
        self.number = state["number"]


def steps_from(trainer, step, state, batch, start, end):
    trainable, optimizer_state, frozen = state
    losses = []
    for number in range(start, end):
        placed = meshes.to_devices(batch, trainer.mesh)
        trainable, optimizer_state, metrics = step(trainable, optimizer_state, frozen, placed, np.int32(number))
        losses.append(float(metrics["loss"]))
    return losses, (trainable, optimizer_state, frozen)


@pytest.mark.parametrize(
    "devices, mesh, remat", [(1, (-1, 1, 1), {}), (8, (1, 4, 2), UNROLLED)], ids=["one device", "fsdp=4,tensor=2"]
)
def test_a_checkpoint_of_eight_ways_goes_on_elsewhere(base, batch, single, saved_eight_ways, devices, mesh, remat):
    trainer, step = compiled(base, devices, mesh, tuple(sorted({**SETTINGS, **remat}.items())))
    checkpoints, position = Checkpoints(saved_eight_ways, read_only=True), Position()
    state = trainer.restore(checkpoints, STEPS // 2, position, None)
    checkpoints.close()
    assert position.number == STEPS // 2
    losses, (weights, *_) = steps_from(trainer, step, state, batch, STEPS // 2, STEPS)
    np.testing.assert_allclose(losses, single[0][STEPS // 2 :], atol=1e-4)
    same_moves(moved(started_from(base), jax.device_get(weights)), single[1])


@pytest.fixture(scope="module")
def saved_eight_ways(base, batch, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("eight")
    trainer, step = compiled(base, 8, (1, 8, 1), tuple(sorted({**SETTINGS, "train__remat": "full"}.items())))
    state = trainer.start(open_model(str(base)).read(place=trainer.place, sharding=trainer.sharding))
    _, (trainable, optimizer_state, frozen) = steps_from(trainer, step, state, batch, 0, STEPS // 2)
    checkpoints = Checkpoints(workdir)
    checkpoints.save(
        STEPS // 2, {**trainable, **frozen}, {"images": {}}, optimizer=optimizer_state, data={"number": STEPS // 2}
    )
    checkpoints.close()
    return workdir


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environments(processes, devices):
    address = f"127.0.0.1:{free_port()}"
    several = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
    return [environment(devices, **several, JAX_PROCESS_ID=str(number)) for number in range(processes)]


@pytest.mark.timeout(400)
def test_two_processes_take_the_same_steps_and_save_together(base, batch, single, tmp_path):
    np.savez(tmp_path / "batch.npz", **dict(batch.items()))
    command = [sys.executable, "-m", "tests.training.one_of_several", str(base), str(tmp_path)]
    command += [str(STEPS), json.dumps(SETTINGS)]
    started = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        for variables in environments(2, 4)
    ]
    reported = [process.communicate(timeout=380) for process in started]
    assert [process.returncode for process in started] == [0, 0], reported
    losses = [json.loads(out.splitlines()[-1]) for out, _ in reported]
    assert losses[0] == losses[1]
    np.testing.assert_allclose(losses[0], single[0], atol=1e-4)
    # What both saved is read here, by one process on one device.
    checkpoints = Checkpoints(tmp_path / "run", read_only=True)
    same_moves(moved(started_from(base), checkpoints.restore_parameters(STEPS, None)), single[1])
    checkpoints.close()


@pytest.mark.parametrize(
    "given, line",
    [
        ({"JAX_COORDINATOR_ADDRESS": "h:1"}, "JAX_NUM_PROCESSES, JAX_PROCESS_ID is not"),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"},
            "JAX_PROCESS_ID is '2' of JAX_NUM_PROCESSES '2'",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "0"},
            "JAX_NUM_PROCESSES 'two'",
        ),
    ],
)
def test_an_environment_that_is_half_set_is_refused(monkeypatch, given, line):
    for name in hosts.EXPLICIT:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=line):
        hosts.start()


def test_a_process_that_has_joined_the_others_does_not_join_again(monkeypatch):
    joined = []
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "h:1")
    monkeypatch.setenv("JAX_NUM_PROCESSES", "1")
    monkeypatch.setenv("JAX_PROCESS_ID", "0")
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: joined.append(options))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: bool(joined))
    hosts.start()
    hosts.start()
    assert joined == [{"coordinator_address": "h:1", "num_processes": 1, "process_id": 0}]


@pytest.mark.parametrize("count", [1, 2])
def test_one_of_several_that_has_used_jax_already_is_told_to_join_first(monkeypatch, count):
    jax.devices()  # as a program that has loaded a model
    for name, value in zip(hosts.EXPLICIT, ("h:1", str(count), "0"), strict=True):
        monkeypatch.setenv(name, value)
    if count == 1:
        hosts.start()  # alone it needs no others
        return
    with pytest.raises(InputError, match="used JAX before it joined the others: call vlm_jax.parallel.hosts.start()"):
        hosts.start()

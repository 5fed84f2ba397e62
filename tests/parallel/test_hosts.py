"""How processes find each other: replicas of a Vertex AI job by CLUSTER_SPEC, tasks of Slurm by its variables."""

import json
import os
import socket
import subprocess
import sys

import pytest

from tests.started import ROOT
from vlm_jax.errors import InputError
from vlm_jax.parallel import hosts

JOINS = """
from vlm_jax.parallel import hosts
hosts.start()
import jax
print(jax.process_index(), jax.process_count(), len(jax.devices()), hosts.is_first())
print(jax.config.values["jax_cuda_visible_devices"])
"""

POOLS = {"workerpool0": ["first:2222"], "workerpool1": ["second:2222", "third:2222"]}


def spec(task, *, pools=POOLS):
    """As Google's page "Distributed training" has it."""
    pool, index = task
    return json.dumps({"cluster": pools, "environment": "cloud", "task": {"type": pool, "index": index, "trial": ""}})


def joined(variables):
    """What processes with these variables say once they have joined: of themselves, and which GPUs they would have."""
    flags = "--xla_force_host_platform_device_count=1"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINS],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags, **own},
            stdout=subprocess.PIPE,
            text=True,
        )
        for own in variables
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(said)
    return said


def test_two_replicas_join_by_what_vertex_ai_tells_them():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pools = {"workerpool1": ["127.0.0.1:1"], "workerpool0": [address]}
    said = joined([{"CLUSTER_SPEC": spec((pool, 0), pools=pools)} for pool in sorted(pools)])
    assert said == [["0 2 2 True", "all"], ["1 2 2 False", "all"]]


def test_two_tasks_of_slurm_one_a_host_join_and_have_all_gpus_of_it():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 61440 + os.getpid() % 4096))  # JAX makes the port of the number of the job
        job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}
    said = joined([{**job, "SLURM_PROCID": number} for number in ("0", "1")])
    assert said == [["0 2 2 True", "all"], ["1 2 2 False", "all"]]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_STEP_NUM_NODES": "4"}, {"local_device_ids": []}),
        ({"SLURM_STEP_NUM_NODES": "4", "JAX_LOCAL_DEVICE_IDS": "0,1"}, {}),
        ({"SLURM_STEP_NUM_NODES": "2"}, {}),  # several tasks a host: JAX gives each its own
    ],
)
def test_a_task_of_slurm_has_all_gpus_where_it_is_alone_on_its_host(monkeypatch, variables, expected):
    task = {"SLURM_NTASKS": "4", "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "node[1-4]", **variables}
    for name, value in task.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(hosts.jax.distributed, "initialize", lambda **options: calls.append(options))
    hosts.start()
    assert calls == [{"cluster_detection_method": "slurm", **expected}]


def test_a_batch_script_of_several_tasks_without_srun_is_refused(monkeypatch):
    for name, value in {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SLURM_STEP_NODELIST", raising=False)
    with pytest.raises(InputError, match="put srun before the command"):
        hosts.start()


@pytest.mark.parametrize(
    ("task", "number"), [(("workerpool0", 0), 0), (("workerpool1", 0), 1), (("workerpool1", 1), 2)]
)
def test_replicas_are_numbered_pool_after_pool_and_the_first_is_the_coordinator(monkeypatch, task, number):
    monkeypatch.setenv("CLUSTER_SPEC", spec(task))
    expected = {"coordinator_address": "first:2222", "num_processes": 3, "process_id": number}
    assert hosts._vertex_replicas() == expected


@pytest.mark.parametrize(
    "value",
    ["", "{}", '{"clusterSpec": {"Master": ["x:1"]}}', spec(("workerpool0", 0), pools={"workerpool0": ["only:2222"]})],
)
def test_one_that_is_alone_and_another_systems_variable_join_nobody(monkeypatch, value):
    monkeypatch.setenv("CLUSTER_SPEC", value)
    assert hosts._vertex_replicas() is None


@pytest.mark.parametrize("value", ["{", spec(("workerpool2", 0)), spec(("workerpool1", 2)), spec(("workerpool1", "x"))])
def test_a_replica_that_is_not_in_its_cluster_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("CLUSTER_SPEC", value)
    with pytest.raises(InputError, match="CLUSTER_SPEC names no replica of its cluster"):
        hosts.start()

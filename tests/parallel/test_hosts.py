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


def test_two_tasks_of_slurm_join_and_have_the_gpus_that_the_script_of_launch_gives_them():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 61440 + os.getpid() % 4096))  # JAX makes the port of the number of the job
        job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "localhost"}
    tasks = [{**job, "SLURM_PROCID": number, "SLURM_LOCALID": "0"} for number in ("0", "1")]
    script = (ROOT / "launch" / "slurm.sh").read_text(encoding="utf-8")
    line = next(line for line in script.splitlines() if line.startswith("JAX_LOCAL_DEVICE_IDS="))
    counted = subprocess.run(
        ["bash", "-c", f"SLURM_GPUS_ON_NODE=4; {line}; echo $JAX_LOCAL_DEVICE_IDS"],
        text=True,
        capture_output=True,
        check=True,
    ).stdout.strip()
    said = joined([{**task, "JAX_LOCAL_DEVICE_IDS": counted} for task in tasks])
    assert said == [["0 2 2 True", "0,1,2,3"], ["1 2 2 False", "0,1,2,3"]]


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

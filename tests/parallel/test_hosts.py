"""How the replicas of a Vertex AI job find each other: by the CLUSTER_SPEC that each of them is told."""

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
"""

POOLS = {"workerpool0": ["first:2222"], "workerpool1": ["second:2222", "third:2222"]}


def spec(task, *, pools=POOLS):
    """As Google's page "Distributed training" has it."""
    pool, index = task
    return json.dumps({"cluster": pools, "environment": "cloud", "task": {"type": pool, "index": index, "trial": ""}})


def test_two_replicas_join_by_what_vertex_ai_tells_them():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    pools = {"workerpool1": ["127.0.0.1:1"], "workerpool0": [address]}
    flags = "--xla_force_host_platform_device_count=1"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOINS],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags, "CLUSTER_SPEC": spec((pool, 0), pools=pools)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for pool in ("workerpool0", "workerpool1")
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["0 2 2 True", "1 2 2 False"]


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

"""What a program takes, against counts by hand, and steps that are compiled for TPUs that are not there."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from vlm_jax.errors import InputError
from vlm_jax.models.fused_attention import fused
from vlm_jax.parallel import program_cost, topology
from vlm_jax.parallel.mesh import MeshShape, make_mesh
from vlm_jax.training.config import default_config

ROOT = Path(__file__).parents[2]
LAYERS, ROWS, WIDTH = 5, 16, 64
needs_libtpu = pytest.mark.skipif(
    (sys.platform, os.uname().machine) != ("linux", "x86_64"), reason="libtpu is made for Linux on x86_64 alone"
)


def layers(kernels, x):
    return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]


def shaped(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_products_are_counted_as_often_as_a_loop_runs_them():
    one = 2 * ROWS * WIDTH * WIDTH
    arguments = shaped(LAYERS, WIDTH, WIDTH), shaped(ROWS, WIDTH)
    assert program_cost.flops(jax.jit(layers).trace(*arguments).jaxpr) == LAYERS * one
    gradient = jax.grad(lambda kernels, x: layers(kernels, x).sum())
    assert program_cost.flops(jax.jit(gradient).trace(*arguments).jaxpr) == 3 * LAYERS * one


def test_a_branch_counts_as_its_costliest_and_a_kernel_on_every_device():
    def either(x, kernel):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ kernel, lambda: x)

    assert program_cost.flops(jax.make_jaxpr(either)(shaped(2, 8), shaped(8, 8))) == 2 * 2 * 8 * 8
    heads, length, width = 4, 256, 16
    x = shaped(8, length, heads, width)
    attend = functools.partial(fused, "splash", causal=False, interpret=True)
    alone = program_cost.flops(jax.make_jaxpr(attend)(x, x, x, jax.ShapeDtypeStruct((8, length), jnp.int32)))
    assert alone >= 8 * heads * 4 * length * length * width
    with jax.set_mesh(make_mesh(MeshShape(data=8))):
        spread = jax.jit(attend).trace(x, x, x, jax.ShapeDtypeStruct((8, length), jnp.int32))
    assert program_cost.flops(spread.jaxpr) == alone


@pytest.mark.parametrize("text", ["v5e", "v9:2x4", "v5e:2x", "v5e:0x4", "v5e:8", "0*v5e:2x4", "2v5e:2x4"])
def test_a_topology_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--topology"):
        topology.parse(text)


@pytest.mark.parametrize(
    ("text", "possible"),
    [
        ("v5e:2x2x2", "slices of v5e are 1x1, 2x2, .*, 16x16$"),
        ("2*v6e:32x32", "slices of v6e are 1x1, .*, 16x16$"),
        ("v5e:1x4", "slices of v5e"),
        ("v4:2x2x1", "a generation of v5e, v5p, v6e and"),
    ],
)
def test_a_slice_that_no_generation_has_is_refused_with_those_that_there_are(text, possible):
    with pytest.raises(InputError, match=possible):
        topology.parse(text)


def test_a_topology_is_its_chips():
    found = topology.parse("v5p:2x2x2")
    assert (found.chips, found.memory) == (8, 95 << 30)
    assert topology.parse("2*v5e:4x4").chips == 32


def compile_check(*flags):
    command = [sys.executable, ROOT / "scripts" / "compile_check.py", "--preset=tiny", *flags]
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    return ran


@pytest.mark.evidence
@needs_libtpu
def test_a_small_step_is_compiled_for_a_slice_of_tpus_with_splash_attention():
    ran = compile_check(
        f"--config={ROOT}/configs/qwen2_5_vl_3b_lora.py",
        "--topology=v5e:2x2",
        "--config.batch.rows=4",
        "--config.batch.sequence_length=256",
        "--config.mesh.fsdp=4",
        "--json",
    )
    (found,) = map(json.loads, ran.stdout.splitlines())
    assert (found["rows"], found["size"][0]) == (4, 256)
    assert ran.returncode == 0 and found["fits"] and found["devices"] == 4
    assert any("splash" in name and "dkv" in name for name in found["kernels"])
    assert found["collectives"]["all-gather"][0] > 0
    # The frozen base is not among what the step returns.
    assert found["memory"]["outputs"] < found["frozen"]


@needs_libtpu
def test_a_step_that_does_not_fit_is_told_with_what_would_help():
    config = f"--config={ROOT}/configs/qwen2_5_vl_3b_full.py"
    ran = compile_check(config, "--topology=v5e:1x1", "--config.batch.rows=2048", "--config.mesh.fsdp=1",
                        "--config.model.path=")  # fmt: skip
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert "RESOURCE_EXHAUSTED" in line
    for setting in ("batch.gradient_accumulation=2048", "lora.rank=16", "batch.sequence_length=1024"):
        assert f"--config.{setting}" in line


class Nowhere(topology.Topology):
    """A slice that no compiler knows: what is checked before is found to be right."""

    def devices(self):
        raise InputError("no such slice")


def test_with_a_preset_neither_data_nor_model_need_be_named_and_the_config_stays_as_it_is():
    from data_pipeline.compile_check import check

    config, slice_ = default_config(), Nowhere("v5e:2x4", "v5e", (2, 4))
    before = config.to_dict()
    with pytest.raises(InputError, match="no such slice"):
        check(config, slice_, preset="tiny")
    config.lock()
    with pytest.raises(InputError, match="no such slice"):
        check(config, slice_, preset="tiny")
    with pytest.raises(InputError, match="config.model.path is ''"):
        check(config, slice_)
    with pytest.raises(InputError, match="--preset=huge: known are"):
        check(config, slice_, preset="huge")
    assert config.to_dict() == before


@needs_libtpu
def test_what_cannot_be_compiled_is_refused_before_compiling():
    config = f"--config={ROOT}/configs/qwen2_5_vl_3b_lora.py"
    ran = compile_check(config, "--topology=v5e:2x4", "--config.batch.rows=3")
    assert ran.returncode == 1 and "batch.rows 3" in ran.stderr and "multiple of 8" in ran.stderr


@pytest.mark.evidence
def test_meshes_that_cannot_be_are_refused_before_compiling():
    config = f"--config={ROOT}/configs/qwen2_5_vl_3b_lora.py"
    ran = compile_check(config, "--topology=v5e:2x4", "--config.batch.rows=8", "--config.mesh.tensor=4")
    assert ran.returncode == 1 and "mesh.tensor 4" in ran.stderr and "2 key-value heads" in ran.stderr
    hosts = ("--topology=v5e:4x4", "--config.batch.rows=8", "--config.mesh.data=1", "--config.mesh.fsdp=2")
    ran = compile_check(config, *hosts, "--config.mesh.tensor=8")
    assert ran.returncode == 1 and "data × fsdp = 1 × 2 does not divide among 4 processes" in ran.stderr

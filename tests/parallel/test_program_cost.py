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
from jax.sharding import NamedSharding, PartitionSpec

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


def test_collectives_in_a_loop_are_multiplied_out():
    mesh = make_mesh(MeshShape(data=1, fsdp=8))

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    split = jax.jit(layers, in_shardings=(place(None, "fsdp"), place("fsdp")), out_shardings=place("fsdp"))
    compiled = split.lower(shaped(LAYERS, WIDTH, WIDTH), shaped(ROWS, WIDTH)).compile()
    found = program_cost.collectives(compiled.as_text())
    assert sum(size for _, size in found.values()) == LAYERS * WIDTH * WIDTH * 4, found
    assert sum(count for count, _ in found.values()) == LAYERS


HLO = """
%start.1 (p: bf16[8,16]) -> (bf16[8,16], bf16[64,16]) {
  %all-gather.0 = bf16[64,16]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %custom-call.1 = (bf16[8,16], bf16[64,16]) custom-call(%all-gather.0), custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.1 (p: bf16[8,16]) -> bf16[64,16] {
  %all-gather.1 = bf16[64,16]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
}

%async_collective_fusion.2 (p: bf16[8,16]) -> bf16[64,16] {
  %all-gather.2 = bf16[64,16]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
}

%done.1 (p: bf16[8,16]) -> bf16[64,16] {
  %all-gather.3 = bf16[64,16]{1,0} all-gather(%p), channel_id=7, replica_groups=[1,8]<=[8], dimensions={0}
  ROOT %custom-call.2 = bf16[64,16] custom-call(%all-gather.3), custom_call_target="AsyncCollectiveDone"
}

%all-reduce-scatter.1 (p: bf16[8,16]) -> bf16[1,16] {
  %all-reduce.1 = bf16[8,16]{1,0} all-reduce(%p), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
}

%all-reduce-scatter.2 (p: bf16[8,16]) -> bf16[1,16] {
  %all-reduce.2 = bf16[8,16]{1,0} all-reduce(%p), channel_id=1, replica_groups=[1,8]<=[8], to_apply=%add
}

%condition.1 (p: (u32[], f32[4])) -> pred[] {
  %constant.1 = u32[]{:T(128)} constant(3)
  ROOT %compare = pred[] compare(%a, %constant.1), direction=LT
}

%condition.2 (p: (u32[], f32[4])) -> pred[] {
  %limit = u32[] get-tuple-element(%p), index=0
  ROOT %compare = pred[] compare(%a, %limit), direction=LE
}

%body.1 (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %begun = (bf16[8,16], bf16[64,16]) fusion(%y), kind=kCustom, calls=%start.1
  %x = bf16[64,16] fusion(%begun), kind=kOutput, calls=%async_collective_fusion.1
  %w = (u32[], f32[4]) while(%t), condition=%condition.2, body=%body.2
  %v = bf16[64,16] fusion(%x), kind=kCustom, calls=%done.1
  %s = f32[2]{0} reduce-scatter(%q), channel_id=8, replica_groups={{0,1},{2,3}}, to_apply=%add
  %r1 = bf16[1,16] fusion(%v), kind=kCustom, calls=%all-reduce-scatter.1
  %r2 = bf16[1,16] fusion(%v), kind=kCustom, calls=%all-reduce-scatter.2
}

%body.2 (p: (u32[], f32[4])) -> (u32[], f32[4]) {
  %z = bf16[64,16] fusion(%x), kind=kOutput, calls=%async_collective_fusion.2
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (u32[], f32[4]) while(%t), condition=%condition.1, body=%body.1
  %start = (f32[4]{0}, f32[32]{0}) all-gather-start(%p), channel_id=9, replica_groups=[1,8]<=[8]
}
"""
"""As the compiler for TPUs writes it. Of the two loops, the inner one ends where the data say."""


def test_a_collective_counts_where_it_is_started_and_not_behind_what_it_goes_on():
    assert program_cost.collectives(HLO) == {
        "all-gather": (3 + 1, 3 * 64 * 16 * 2 + 32 * 4),
        "all-reduce": (3 * 2, 3 * 2 * 8 * 16 * 2),  # on one channel, and two of them
        "reduce-scatter": (3, 3 * 2 * 4 * 2),
    }
    with pytest.raises(ValueError, match="does not tell how often"):
        program_cost.collectives(HLO.replace("direction=LT", "direction=GT"))


@pytest.mark.parametrize("text", ["v5e", "v9:2x4", "v5e:2x", "v5e:0x4", "v5e:8"])
def test_a_topology_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--topology"):
        topology.parse(text)


def test_a_topology_is_its_chips():
    found = topology.parse("v5p:2x2x2")
    assert (found.chips, found.memory) == (8, 95 << 30)


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

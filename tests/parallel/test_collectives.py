"""What devices send each other, counted in compiled programs."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.parallel.test_program_cost import LAYERS, ROWS, WIDTH, layers, shaped
from vlm_jax.parallel.collectives import _groups, collectives
from vlm_jax.parallel.mesh import MeshShape, make_mesh


def test_collectives_in_a_loop_are_multiplied_out():
    mesh = make_mesh(MeshShape(data=1, fsdp=8))

    def place(*axes):
        return NamedSharding(mesh, PartitionSpec(*axes))

    split = jax.jit(layers, in_shardings=(place(None, "fsdp"), place("fsdp")), out_shardings=place("fsdp"))
    compiled = split.lower(shaped(LAYERS, WIDTH, WIDTH), shaped(ROWS, WIDTH)).compile()
    found = collectives(compiled.as_text())
    assert sum(size for _, size in found.values()) == LAYERS * WIDTH * WIDTH * 4 * 7 // 8, found
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
    assert collectives(HLO) == {
        "all-gather": (3 + 1, (3 * 64 * 16 * 2 + 32 * 4) * 7 // 8),
        "all-reduce": (3 * 2, 3 * 2 * 2 * 8 * 16 * 2 * 7 // 8),  # on one channel, and two of them
        "reduce-scatter": (3, 3 * 2 * 4 * 2 // 2),
    }
    with pytest.raises(ValueError, match="does not tell how often"):
        collectives(HLO.replace("direction=LT", "direction=GT"))


WINDOWED = """
%condition (p: (f32[4], u32[])) -> pred[] {
  %most = u32[] constant(8)
  %counter.1 = u32[] get-tuple-element(%p), index=1
  ROOT %compare = pred[] compare(%counter.1, %most), direction=LT
}

%body (p: (f32[4], u32[])) -> (f32[4], u32[]) {
  %two = u32[] constant(2)
  %part = f32[4] get-tuple-element(%p), index=0
  %counter.2 = u32[] get-tuple-element(%p), index=1
  %next = f32[4] collective-permute(%part), channel_id=1, source_target_pairs={{0,1},{1,2},{2,3},{3,0}}
  %more = u32[] add(%counter.2, %two)
  ROOT %both = (f32[4], u32[]) tuple(%next, /*index=1*/%more)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = (f32[4], u32[]) while(%t), condition=%condition, body=%body
}
"""


def test_a_loop_whose_counter_grows_by_two_runs_half_as_often():
    assert collectives(WINDOWED) == {"collective-permute": (4, 4 * 16)}
    assert collectives(WINDOWED.replace("constant(2)", "constant(1)")) == {"collective-permute": (8, 8 * 16)}


SEND = (
    "%send = (f32[2,8]{1,0:T(8,128)}, u32[], token[]) send(%x, %after-all), channel_id=2, is_host_transfer=true, "
    'frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",'
    '_xla_megascale_reduce_operation="SUM",_xla_megascale_target="{1,2}x{0:3}",'
    '_xla_megascale_transfer_type="ALL_REDUCE"}'
)


def test_what_goes_between_slices_is_told_apart():
    program = WINDOWED.replace("  %w = ", f"  {SEND}\n  %w = ")
    assert collectives(program) == {
        "all-reduce between slices": (1, 64),
        "collective-permute": (4, 4 * 16),
    }
    four = program.replace("{1,2}x", "{1,2,3,4}x")
    assert collectives(four)["all-reduce between slices"] == (1, 2 * 64 * 3 // 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replica_groups={{0,2},{1,3}}", [[0, 2], [1, 3]]),
        ("replica_groups=[2,2]<=[4]", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['x'=2,'y'=2] {'x'}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['x'=2,'y'=2] {'x','y'}", [[0, 1, 2, 3]]),
        ("replica_groups=mesh['x'=1,'y'=4], device_ids=([2,2]T(1,0)) {'y'}", [[0, 2, 1, 3]]),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_who_takes_part_is_read_in_every_form(text, expected):
    np.testing.assert_array_equal(_groups(f"%a = f32[4] all-reduce(%p), channel_id=1, {text}, to_apply=%add"), expected)


def test_a_collective_that_does_not_tell_who_takes_part_is_no_guess():
    with pytest.raises(ValueError, match="does not tell who takes part"):
        collectives(WINDOWED.replace("source_target_pairs", "pairs"))

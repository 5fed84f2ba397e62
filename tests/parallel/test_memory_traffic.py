"""The bytes a compiled program moves through a device's main memory, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from vlm_jax.parallel.memory_traffic import hbm_bytes

ADD = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""
CONDITION = """
%condition (state.1: (s32[], f32[8,16])) -> pred[] {
  %state.1 = (s32[], f32[8,16]{1,0}) parameter(0)
  %bound = s32[] constant(5)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %less = pred[] compare(%i.1, %bound), direction=LT
}
"""
A = 8 * 16 * 4
"""Bytes of an f32[8,16], which most of the snippets work on."""


def entry(*lines, before=""):
    """Bytes of a program: its parameters are x, y f32[8,16] and s of stacked ones, `vmem` lies on the chip."""
    head = (
        "%x = f32[8,16]{1,0:T(8,128)} parameter(0)",
        "%y = f32[8,16]{1,0:T(8,128)} parameter(1)",
        "%s = f32[6,8,16]{2,1,0:T(8,128)} parameter(2)",
        "%vmem = f32[8,16]{1,0:T(8,128)S(1)} parameter(3)",
        "%i = s32[]{:T(128)} parameter(4)",
        "%zero = s32[]{:T(128)} constant(0)",
    )
    body = "\n".join(f"  {line}" for line in (*head, *lines))
    return hbm_bytes(
        f"HloModule jit_f, is_scheduled=true\n{before}\nENTRY %main (x: f32[8,16]) -> f32[8,16] {{\n{body}\n}}\n"
    )


INSTRUCTIONS = {
    "operands and result": ("%r = f32[8,16]{1,0} add(%x, %y)", 3 * A),
    "an operand twice is read once": ("%r = f32[8,16]{1,0} multiply(%x, %x)", 2 * A),
    "a narrow result": ("%r = bf16[8,16]{1,0:T(8,128)(2,1)} convert(%x)", A + A // 2),
    "eight bits": ("%r = f8e4m3fn[8,16]{1,0} convert(%x)", A + A // 4),
    "on the chip": ("%r = f32[8,16]{1,0:T(8,128)S(1)} add(%vmem, %x)", A),
    "in memory after all": ("%r = f32[8,16]{1,0:T(8,128)S(0)} negate(%vmem)", A),
    "single numbers": ("%r = s32[] add(%i, %zero)", 0),
    "a tuple": ("%r = (f32[8,16]{1,0}, /*index=1*/s32[]) tuple(%x, %i)", 0),
    "a bitcast": ("%r = f32[128]{0} bitcast(%x)", 0),
    "iota is written": ("%r = s32[8,16]{1,0} iota(), iota_dimension=0", A),
    "no instruction that is known": ("%r = (f32[8,16]{1,0}, token[]) something-new(%x), how={1,0}", 2 * A),
    "a reduction": ("%r = f32[8]{0} reduce(%x, %zero), dimensions={1}, to_apply=%add", A + 8 * 4),
    "types that stand at their use": ("%r = f32[8]{0} reduce(f32[8,16]{1,0:T(8,128)} %x, s32[] %zero)", A + 8 * 4),
    "names without a sign": ("r = f32[8,16]{1,0} add(x, y)", 3 * A),
    "a kernel": (
        '%r = (f32[8,16]{1,0}, f32[8,16]{1,0:S(1)}) custom-call(%x, %y, %vmem), custom_call_target="mosaic"',
        3 * A,
    ),
    "a place": ('%r = f32[8,16]{1,0} custom-call(), custom_call_target="AllocateBuffer"', 0),
    "a slice": ("%r = f32[1,8,16]{2,1,0} slice(%s), slice={[2:3], [0:8], [0:16]}", 2 * A),
    "a dynamic slice": (
        "%r = f32[1,8,16]{2,1,0:T(8,128)S(1)} dynamic-slice(%s, %i, %zero, %zero), dynamic_slice_sizes={1,8,16}",
        A,
    ),
    "a collective": ("%r = f32[64,16]{1,0} all-gather(%x), replica_groups={}, dimensions={0}", 9 * A),
}


@pytest.mark.parametrize("line, expected", INSTRUCTIONS.values(), ids=INSTRUCTIONS)
def test_an_instruction(line, expected):
    assert entry(line, before=ADD) == expected


def test_what_starts_and_ends_apart_counts_once():
    to_chip = (
        "%start = (f32[8,16]{1,0:S(1)}, f32[8,16]{1,0}, u32[]{:S(2)}) copy-start(%x)",
        "%done = f32[8,16]{1,0:S(1)} copy-done(%start)",
    )
    assert entry(*to_chip) == A
    to_memory = (
        "%start = (f32[8,16]{1,0}, f32[8,16]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%vmem)",
        "%done = f32[8,16]{1,0} copy-done(%start)",
    )
    assert entry(*to_memory) == A
    part = (
        "%start = ((f32[6,8,16]{2,1,0}), f32[2,8,16]{2,1,0:S(1)}, s32[]{:S(2)}) slice-start(%s), slice={[0:2]}",
        "%done = f32[2,8,16]{2,1,0:S(1)} slice-done(%start)",
    )
    assert entry(*part) == 2 * A
    sent = (
        "%start = (f32[8,16]{1,0}, f32[8,16]{1,0}, u32[]{:S(2)}) collective-permute-start(%x), channel_id=1",
        "%done = f32[8,16]{1,0} collective-permute-done(%start)",
    )
    assert entry(*sent) == 2 * A


def test_a_wrapped_computation_counts_once():
    wrapped = """
%wrapped (p: f32[8,16]) -> f32[64,16] {
  %p = f32[8,16]{1,0} parameter(0)
  ROOT %gathered = f32[64,16]{1,0} all-gather(%p), dimensions={0}
}
"""
    lines = (
        "%start = ((f32[8,16]{1,0}), f32[64,16]{1,0}, u32[]) async-start(%x), calls=%wrapped",
        "%going = ((f32[8,16]{1,0}), f32[64,16]{1,0}, u32[]) async-update(%start)",
        "%done = f32[64,16]{1,0} async-done(%going)",
    )
    assert entry(*lines, before=wrapped) == 9 * A
    assert entry("%r = f32[64,16]{1,0} call(%x), to_apply=%wrapped", before=wrapped) == 9 * A


def test_updates_are_made_in_place():
    update = "%r = f32[6,8,16]{2,1,0} dynamic-update-slice(%s, %one, %i, %zero, %zero)"
    assert entry("%one = f32[1,8,16]{2,1,0} bitcast(%x)", update) == 2 * A
    assert entry("%one = f32[1,8,16]{2,1,0:S(1)} bitcast(%vmem)", update) == A
    scatter = "%r = f32[6,8,16]{2,1,0} scatter(%s, %places, %one), to_apply=%add"
    places = '%places = s32[1]{0} custom-call(), custom_call_target="AllocateBuffer"'
    assert entry("%one = f32[1,8,16]{2,1,0} bitcast(%x)", places, scatter, before=ADD) == 2 * A + 4
    gather = "%r = f32[1,8,16]{2,1,0} gather(%s, %places), slice_sizes={1,8,16}"
    assert entry(places, gather) == 2 * A + 4


LOOP = """
%fused (p0: f32[6,8,16], p1: s32[], p2: f32[8,16]) -> f32[8,16] {
  %p0 = f32[6,8,16]{2,1,0} parameter(0)
  %same = f32[6,8,16]{2,1,0} copy(%p0)
  %p1 = s32[] parameter(1)
  %none = s32[] constant(0)
  %one = f32[1,8,16]{2,1,0} dynamic-slice(%same, %p1, %none, %none), dynamic_slice_sizes={1,8,16}
  %flat = f32[8,16]{1,0} bitcast(%one)
  %p2 = f32[8,16]{1,0} parameter(2)
  ROOT %product = f32[8,16]{1,0} multiply(%flat, %p2)
}

%body (state: (s32[], f32[8,16], f32[6,8,16])) -> (s32[], f32[8,16], f32[6,8,16]) {
  %state = (s32[], f32[8,16]{1,0}, f32[6,8,16]{2,1,0}) parameter(0)
  %index = s32[] get-tuple-element(%state), index=0
  %x.1 = f32[8,16]{1,0} get-tuple-element(%state), index=1
  %stack = f32[6,8,16]{2,1,0} get-tuple-element(%state), index=2
  %new = f32[8,16]{1,0} fusion(%stack, %index, %x.1), kind=kLoop, calls=%fused
  %step = s32[] constant(1)
  %next = s32[] add(%index, %step)
  ROOT %out = (s32[], f32[8,16]{1,0}, f32[6,8,16]{2,1,0}) tuple(%next, %new, %stack)
}
"""
WHILE = (
    "%start = (s32[], f32[8,16]{1,0}, f32[6,8,16]{2,1,0}) tuple(%zero, %x, %s)",
    "%while = (s32[], f32[8,16]{1,0}, f32[6,8,16]{2,1,0}) while(%start), condition=%condition, body=%body",
)


def test_a_loop_reads_one_layer_of_a_stack_each_time():
    assert entry(*WHILE, before=LOOP + CONDITION) == 5 * 3 * A
    told = WHILE[1] + ', backend_config={"known_trip_count":{"n":"6"}}'
    assert entry(WHILE[0], told, before=LOOP + CONDITION) == 6 * 3 * A
    unbounded = CONDITION.replace("direction=LT", "direction=NE")
    assert entry(*WHILE, before=LOOP + unbounded) == 3 * A


def test_a_conditional_is_its_costliest_branch():
    branches = """
%little (p: f32[8,16]) -> f32[8,16] {
  ROOT %p = f32[8,16]{1,0} parameter(0)
}

%much (q: f32[8,16]) -> f32[8,16] {
  %q = f32[8,16]{1,0} parameter(0)
  ROOT %r.1 = f32[8,16]{1,0} negate(%q)
}
"""
    line = "%r = f32[8,16]{1,0} conditional(%i, %x, %x), "
    assert entry(line + "branch_computations={%much, %little}", before=branches) == 2 * A
    assert entry(line + "true_computation=%little, false_computation=%much", before=branches) == 2 * A


def fused(parameters, *lines, call, extra=""):
    head = [f"%p{number} = {kind} parameter({number})" for number, kind in enumerate(parameters)]
    body = "\n".join(f"  {line}" for line in (*head, "%none = s32[] constant(0)", *lines))
    before = f"{extra}\n%inside (p0: f32[8,16]) -> f32[8,16] {{\n{body}\n}}\n"
    return entry(f"{call}, kind=kLoop, calls=%inside", before=before)


X, STACK, INDEX = "f32[8,16]{1,0}", "f32[6,8,16]{2,1,0}", "s32[]"


def test_a_fusion_reads_what_is_used_of_its_operands():
    call = "%r = f32[1,8,16]{2,1,0:S(1)} fusion(%s, %i)"
    slices = "slice(%p0), slice={[0:1], [0:8], [0:16]}", "slice(%p0), slice={[1:2], [0:8], [0:16]}"
    two = f"%a = f32[1,8,16] {slices[0]}", f"%b = f32[1,8,16] {slices[1]}", "ROOT %c = f32[1,8,16] add(%a, %b)"
    assert fused([STACK, INDEX], *two, call=call) == 2 * A
    # A sum needs all of it, a slice of a conversion only its part.
    all_of_it = "%n = f32[8,16] reduce(%p0, %none), dimensions={0}, to_apply=%add", *two
    used = "%d = f32[1,8,16] broadcast(%n), dimensions={1,2}", "ROOT %e = f32[1,8,16] add(%c, %d)"
    whole = *all_of_it[:-1], "%c = f32[1,8,16] add(%a, %b)", *used
    assert fused([STACK, INDEX], *whole, call=call, extra=ADD) == 6 * A
    later = (
        "%n = bf16[6,8,16] convert(%p0)",
        "ROOT %one = bf16[1,8,16] dynamic-slice(%n, %p1, %none, %none), dynamic_slice_sizes={1,8,16}",
    )
    assert fused([STACK, INDEX], *later, call=call.replace("f32", "bf16")) == A
    assert fused([X, X], "ROOT %n = f32[8,16] negate(%p0)", call="%r = f32[8,16]{1,0} fusion(%x, %y)") == 2 * A


def test_a_fusion_in_a_fusion():
    nested = """
%nested (q0: f32[6,8,16], q1: s32[]) -> f32[1,8,16] {
  %q0 = f32[6,8,16] parameter(0)
  %q1 = s32[] parameter(1)
  %no = s32[] constant(0)
  ROOT %cut = f32[1,8,16] dynamic-slice(%q0, %q1, %no, %no), dynamic_slice_sizes={1,8,16}
}
"""
    lines = "%cut.1 = f32[1,8,16] fusion(%p0, %p1), kind=kLoop, calls=%nested", "ROOT %n = f32[1,8,16] negate(%cut.1)"
    assert fused([STACK, INDEX], *lines, call="%r = f32[1,8,16]{2,1,0} fusion(%s, %i)", extra=nested) == 2 * A


def test_a_fusion_updates_in_place():
    update = "%new = f32[6,8,16] dynamic-update-slice(%p0, %flat, %p1, %none, %none)"
    flat, call = "%flat = f32[1,8,16] bitcast(%p2)", "fusion(%s, %i, %x)"
    alone = f"%r = {STACK} {call}"
    assert fused([STACK, INDEX, X], flat, f"ROOT {update}", call=alone) == 2 * A
    accumulated = (
        "%old = f32[1,8,16] dynamic-slice(%p0, %p1, %none, %none), dynamic_slice_sizes={1,8,16}",
        "%given = f32[1,8,16] bitcast(%p2)",
        "%flat = f32[1,8,16] add(%old, %given)",
        f"ROOT {update}",
    )
    assert fused([STACK, INDEX, X], *accumulated, call=alone) == 3 * A
    twice = flat, update, "ROOT %more = f32[6,8,16] dynamic-update-slice(%new, %flat, %none, %none, %none)"
    assert fused([STACK, INDEX, X], *twice, call=alone) == 3 * A
    several = flat, update, "%n = f32[8,16] negate(%p2)", f"ROOT %t = ({STACK}, {X}) tuple(%new, %n)"
    assert fused([STACK, INDEX, X], *several, call=f"%r = ({STACK}, {X}) {call}") == 3 * A
    # What is made inside and then updated is written as a whole.
    made = flat, "%zeros = f32[6,8,16] broadcast(%none), dimensions={}", "ROOT " + update.replace("%p0", "%zeros")
    assert fused([STACK, INDEX, X], *made, call=alone) == A + 6 * A


def test_a_collective_behind_other_work_counts_where_it_starts():
    gathered = "f32[64,16]{1,0}"
    programs = f"""
%begin (a0: f32[8,16]) -> (f32[8,16], f32[64,16], u32[]) {{
  %a0 = {X} parameter(0)
  %g0 = {gathered} all-gather(%a0), dimensions={{0}}
  ROOT %c0 = ({X}, {gathered}, u32[]) custom-call(%g0), custom_call_target="AsyncCollectiveStart"
}}

%async_collective_fusion.1 (b0: f32[8,16], b1: f32[64,16], b2: f32[8,16]) -> (f32[8,16], f32[8,16], f32[64,16]) {{
  %b0 = {X} parameter(0)
  %b1 = {gathered} parameter(1)
  %b2 = {X} parameter(2)
  %work = {X} negate(%b2)
  %g1 = {gathered} all-gather(%b0), dimensions={{0}}
  ROOT %t1 = ({X}, {X}, {gathered}, {gathered}) tuple(%work, %b0, %b1, %g1)
}}

%end (d0: f32[8,16], d1: f32[64,16]) -> f32[64,16] {{
  %d0 = {X} parameter(0)
  %d1 = {gathered} parameter(1)
  %g2 = {gathered} all-gather(%d0), dimensions={{0}}
  ROOT %c2 = {gathered} custom-call(%d0, %d1, %g2), custom_call_target="AsyncCollectiveDone"
}}
"""
    begin = (
        f"%s0 = ({X}, {gathered}, u32[]) fusion(%x), kind=kCustom, calls=%begin",
        f"%s1 = {X} get-tuple-element(%s0), index=0",
        f"%s2 = {gathered} get-tuple-element(%s0), index=1",
    )
    work = (
        f"%w0 = ({X}, {X}, {gathered}, {gathered}) fusion(%s1, %s2, %y), kind=kLoop, calls=%async_collective_fusion.1",
        f"%w2 = {gathered} get-tuple-element(%w0), index=2",
    )
    end = f"%e0 = {gathered} fusion(%s1, %w2), kind=kCustom, calls=%end"
    assert entry(*begin, before=programs) == 9 * A
    assert entry(*begin, *work, before=programs) == 11 * A
    assert entry(*begin, *work, end, before=programs) == 11 * A


def test_text_that_holds_no_program():
    assert hbm_bytes("") == 0
    assert hbm_bytes("HloModule jit_f") == 0
    assert entry("%r = f32[8,16]{1,0} fusion(%x), kind=kLoop, calls=%missing") == 2 * A
    assert entry("%r = f32[8,16]{1,0} while(%x), condition=%missing, body=%missing") == 0


def test_a_scan_reads_each_kernel_about_once():
    depth, rows, width = 12, 16, 256

    def layers(kernels, x):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    arguments = (
        jax.ShapeDtypeStruct((depth, width, width), jnp.float32),
        jax.ShapeDtypeStruct((rows, width), jnp.float32),
    )
    stack, activations = depth * width * width * 4, depth * rows * width * 4
    found = hbm_bytes(jax.jit(layers).lower(*arguments).compile().as_text())
    assert stack + activations <= found <= 3 * stack + 12 * activations
    gradient = jax.jit(jax.grad(lambda kernels, x: layers(kernels, x).sum()))
    found = hbm_bytes(gradient.lower(*arguments).compile().as_text())
    # Layers are cut out twice (3 each); gradients start from zeros (1), are made (1) and put in place (2).
    assert 5 * stack <= found <= 10 * stack + 40 * activations

"""What a compiled program takes: memory by kind, multiplications, and what devices send each other.

XLA's own cost analysis counts the body of a loop once; layers are a loop here, so both are counted with the loops
multiplied out: floating-point operations from the traced program, collectives from the compiled one.
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from typing import Any

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on each device."""

    arguments: int
    """Parameters, optimizer and batch. What the step returns takes their place where it can."""
    outputs: int
    """What is returned in a place of its own."""
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs + self.temporaries + self.program


def memory(compiled) -> Memory:
    """Of a `jax.stages.Compiled`."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def flops(jaxpr: Any) -> float:
    """Floating-point operations of the products of a (closed) jaxpr over all devices: 2 for each multiplication.

    What is computed again in a backward pass counts again. A loop whose length depends on values counts once, which
    `blockwise` attention and greedy token reduction have. A kernel counts what it says of itself, or its products at
    every place of its grid.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum((_equation_flops(equation) for equation in jaxpr.eqns), 0.0)


def _equation_flops(equation) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        left, right = (value.aval.shape for value in equation.invars[:2])
        (contracted, _), _ = params["dimension_numbers"]
        return 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    if name == "pallas_call":
        estimate = params.get("cost_estimate")
        if estimate is not None:
            return float(estimate.flops)
        return math.prod(params["grid_mapping"].grid) * flops(params["jaxpr"])
    times = 1.0
    if name == "scan":
        times = params["length"]
    elif name == "shard_map":  # what is inside runs on every device
        times = math.prod(params["mesh"].shape.values())
    inner = [_most(value) for value in params.values()]
    return times * sum(inner)


def _most(value) -> float:
    """Of a parameter of an equation: a program, the costliest of several branches, or none."""
    if hasattr(value, "eqns") or hasattr(value, "jaxpr"):
        return flops(value)
    if isinstance(value, tuple | list):
        return max((_most(one) for one in value), default=0.0)
    return 0.0


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """{kind: (how often, bytes)} of what each device sends or receives in one run of a compiled program.

    Args:
      hlo: `compiled.as_text()`. The bytes of a reduce-scatter are those it starts from, of others those it results in.

    Raises:
      ValueError: a loop that holds collectives does not tell how often it runs.
    """
    bodies, entry = _computations(hlo)

    @functools.cache
    def inside(name: str) -> tuple[dict[str, tuple[str, int]], Counter]:
        """Of one run of a computation: {line: (kind, bytes)}, and what its loops add to that."""
        sent: dict[str, tuple[str, int]] = {}
        loops: Counter = Counter()
        going_on = _GOING_ON in name or any(_DONE in line for line in bodies[name])
        for line in bodies[name]:
            found = _COLLECTIVE.search(line)
            if found and not going_on:
                sent[line] = (found["kind"], _moved(line, found))
            for attribute, names in _CALLED.findall(line):
                for one in re.findall(r"[\w.\-]+", names):
                    if attribute == "body":
                        added = _sum(*inside(one))
                        times = _trips(line, bodies) if added else 0
                        loops += Counter({key: times * value for key, value in added.items()})
                    elif attribute != "condition":
                        more, inner = inside(one)
                        sent |= more
                        loops += inner
        return sent, loops

    total = _sum(*inside(entry))
    return {kind: (total[kind, "count"], total[kind, "bytes"]) for kind in COLLECTIVES if total[kind, "count"]}


_GOING_ON, _DONE = "async_collective_fusion", 'custom_call_target="AsyncCollectiveDone"'
"""What a collective that is hidden behind other work is written in once more, beside where it is started: the products
it goes on behind, which may lie in a loop that it was started before, and its end."""


def _sum(sent: dict[str, tuple[str, int]], loops: Counter) -> Counter:
    total = Counter(loops)
    for kind, size in sent.values():
        total[kind, "count"] += 1
        total[kind, "bytes"] += size
    return total


_COLLECTIVE = re.compile(
    rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{'|'.join(COLLECTIVES)})(?P<start>-start)?\((?P<operands>[^)]*)\)"
)
_CALLED = re.compile(r"(calls|to_apply|body|condition|branch_computations|called_computations)=(\{[^}]*\}|%?[\w.\-]+)")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the one that is the program."""
    bodies: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in hlo.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if head:
            lines = bodies[head[2]] = []
            entry = head[2] if head[1] else entry
        else:
            lines.append(line)
    return bodies, entry


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop runs: its line says so, or its counter, from 0 in steps of 1, is held against a constant."""
    match = re.search(r"known_trip_count\W+n\W+(\d+)", line)
    if match:
        return int(match[1])
    condition = re.search(r"condition=%?([\w.\-]+)", line)
    text = "\n".join(bodies[condition[1]])
    bounds = re.findall(r"[su]32\[\]\S* constant\((\d+)\)", text)
    if len(bounds) != 1 or "direction=LT" not in text:
        raise ValueError(f"a loop does not tell how often it runs: {line.strip()[:120]}")
    return int(bounds[0])


def _moved(line: str, found: re.Match) -> int:
    sizes = [_size(kind, shape) for kind, shape in _SHAPE.findall(found["result"])]
    if found["start"]:  # (what is sent, what is received, …)
        return sizes[0] if found["kind"] == "reduce-scatter" else max(sizes)
    if found["kind"] == "reduce-scatter":
        groups = re.search(r"replica_groups=\{\{([\d,]*)\}", line)
        ways = len(groups[1].split(",")) if groups else _group_size(line)
        return sum(sizes) * ways
    return sum(sizes)


def _group_size(line: str) -> int:
    """Of the forms `replica_groups=[groups,size]<=…` and `mesh['x'=2,'y'=4] {'y'}`."""
    iota = re.search(r"replica_groups=\[(?:\d+,)*(\d+)\]", line)
    if iota:
        return int(iota[1])
    named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
    if not named:
        raise ValueError(f"a reduce-scatter does not tell its groups: {line.strip()[:120]}")
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
    return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", named[2]))


def _size(kind: str, shape: str) -> int:
    width = 1 if kind == "pred" else int(re.search(r"\d+", kind)[0]) / 8
    return math.ceil(math.prod(int(size) for size in shape.split(",") if size) * width)

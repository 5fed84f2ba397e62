"""What a program takes: memory by kind, from the compiled one, and multiplications, from the traced one.

XLA's own cost analysis counts the body of a loop once; layers are a loop here, so products are counted with the loops
multiplied out. What devices send each other is `collectives`'.
"""

import dataclasses
import math
from typing import Any


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
    if not equation.outvars and not equation.effects:  # what a kept value has made needless: the compiler leaves it out
        return 0.0
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

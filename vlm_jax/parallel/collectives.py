"""What devices send each other in one run of a compiled program, with the loops multiplied out."""

import functools
import math
import re
from collections import Counter

import numpy as np

from vlm_jax.parallel.hlo_text import DONE, GOING_ON, SHAPE, UnknownForm, called, computations, size, trips

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
BETWEEN = " between slices"
"""Behind the kind of a collective that goes over the network between slices. TPUs send and receive for it, by way of
their hosts, what was summed up within a slice."""


def collectives(hlo: str) -> dict[str, tuple[int, int]]:
    """{kind: (how often, bytes that each device sends)}.

    Bytes are those of rings, the least that a device can send: of g devices an all-gather sends (g − 1) / g of its
    result, a reduce-scatter as much of what it starts from, an all-reduce both.

    Args:
      hlo: `compiled.as_text()`.

    Raises:
      UnknownForm: a loop that holds collectives does not tell how often it runs, or a collective not who takes part.
    """
    bodies, entry = computations(hlo)

    @functools.cache
    def inside(name: str) -> tuple[dict[str, tuple[str, int]], Counter]:
        """Of one run of a computation: {line: (kind, bytes)}, and what its loops add to that."""
        sent: dict[str, tuple[str, int]] = {}
        loops: Counter = Counter()
        going_on = GOING_ON in name or any(DONE in line for line in bodies[name])
        for line in bodies[name]:
            found = _COLLECTIVE.search(line)
            if found and not going_on:
                sent[line] = _sent(line, found)
            elif found := _BETWEEN.search(line):
                sent[line] = _sent_between(found)
            for how, one in called(line):
                if how == "body":
                    added = _sum(*inside(one))
                    times = trips(line, bodies) if added else 0
                    loops += Counter({key: times * value for key, value in added.items()})
                elif how != "condition":
                    more, inner = inside(one)
                    sent |= more
                    loops += inner
        return sent, loops

    total = _sum(*inside(entry))
    kinds = [kind + place for kind in KINDS for place in ("", BETWEEN)]
    return {kind: (total[kind, "count"], total[kind, "bytes"]) for kind in kinds if total[kind, "count"]}


def _sum(sent: dict[str, tuple[str, int]], loops: Counter) -> Counter:
    total = Counter(loops)
    for kind, moved in sent.values():
        total[kind, "count"] += 1
        total[kind, "bytes"] += moved
    return total


_COLLECTIVE = re.compile(
    rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<operands>[^)]*)\)"
)


def _sent(line: str, found: re.Match) -> tuple[str, int]:
    """The kind of a collective, and the bytes that a device sends."""
    kind, groups = found["kind"], _groups(line)
    sizes = [size(*shape) for shape in SHAPE.findall(found["result"])]
    ways = groups.shape[1]
    if found["start"]:  # (what is sent, what is received, …)
        whole = sizes[0] if kind == "reduce-scatter" else max(sizes)
    else:
        whole = sum(sizes) * (ways if kind == "reduce-scatter" else 1)
    if kind != "collective-permute":
        whole = (2 if kind == "all-reduce" else 1) * whole * (ways - 1) // ways
    return kind, whole


_BETWEEN = re.compile(
    r"= (?P<result>\(.*?\)) send\(.*_xla_megascale_target=\"\{(?P<slices>[\d,]*)\}"
    r".*_xla_megascale_transfer_type=\"(?P<kind>\w+)\""
)


def _sent_between(found: re.Match) -> tuple[str, int]:
    """The kind of a collective between slices, and the bytes that a device sends there."""
    kind, ways = found["kind"].lower().replace("_", "-"), len(found["slices"].split(","))
    whole = size(*SHAPE.search(found["result"]).groups())
    return kind + BETWEEN, (2 if kind == "all-reduce" else 1) * whole * (ways - 1) // ways


def _groups(line: str) -> np.ndarray:
    """[groups, devices] of those that take part together; of a permutation who sends to whom.

    Of the forms `{{0,1},{2,3}}`, `[2,2]<=[4]`, `[2,2]<=[2,2]T(1,0)`, `mesh['x'=2,'y'=4] {'y'}` and
    `mesh['x'=2,'y'=4], device_ids=([4,2]T(1,0)) {'y'}`.

    Raises:
      UnknownForm: none of them.
    """
    if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}", line):
        return np.array([[int(one) for one in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])])
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\[\S+?\](?:T\([\d,]+\))?)", line):
        return _devices(iota[2]).reshape(-1, int(iota[1].split(",")[-1]))
    named = r"replica_groups=mesh\[(?P<axes>[^\]]*)\](?:, device_ids=\((?P<order>[^ ]*)\))? \{(?P<together>[^}]*)\}"
    if mesh := re.search(named, line):
        sizes = {name: int(count) for name, count in re.findall(r"'(\w+)'=(\d+)", mesh["axes"])}
        axes = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", mesh["together"])]
        shape = list(sizes.values())
        devices = _devices(mesh["order"]) if mesh["order"] else np.arange(math.prod(shape))
        together = math.prod(shape[axis] for axis in axes)
        return np.moveaxis(devices.reshape(shape), axes, range(-len(axes), 0)).reshape(-1, together)
    raise UnknownForm(f"a collective does not tell who takes part: {line.strip()[:120]}")


def _devices(order: str) -> np.ndarray:
    """Numbers of devices in the order `[4,2]T(1,0)`, or `[8]`."""
    dims, _, axes = order.partition("T")
    shape = [int(one) for one in dims.strip("[]").split(",")]
    devices = np.arange(math.prod(shape)).reshape(shape)
    return (devices.transpose(*(int(one) for one in axes.strip("()").split(","))) if axes else devices).ravel()

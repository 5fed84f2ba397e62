"""Compiled programs as XLA prints them (`compiled.as_text()`): computations, what calls what, trips of loops."""

import math
import re

CALLED = re.compile(
    r"(calls|to_apply|body|condition|branch_computations|true_computation|false_computation|called_computations)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
"""What an instruction calls, and how."""
SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
GOING_ON, DONE = "async_collective_fusion", 'custom_call_target="AsyncCollectiveDone"'
"""What a collective that is hidden behind other work is written in once more, beside where it is started: the products
it goes on behind, which may lie in a loop that it was started before, and its end."""


class UnknownForm(ValueError):
    """A program is written in a form that is not understood here."""


def computations(hlo: str) -> tuple[dict[str, list[str]], str]:
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


def called(line: str) -> list[tuple[str, str]]:
    """(how, computation) for each that an instruction calls."""
    return [(how, one) for how, names in CALLED.findall(line) for one in re.findall(r"[\w.\-]+", names)]


def trips(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop runs: its line says so, or its counter, from 0, is held against a constant.

    Raises:
      UnknownForm: neither.
    """
    match = re.search(r"known_trip_count\W+n\W+(\d+)", line)
    if match:
        return int(match[1])
    loop = dict(called(line))
    text = "\n".join(bodies[loop["condition"]])
    bounds = re.findall(r"[su]32\[\]\S* constant\((\d+)\)", text)
    if len(bounds) != 1 or "direction=LT" not in text:
        raise UnknownForm(f"a loop does not tell how often it runs: {line.strip()[:120]}")
    return -(-int(bounds[0]) // _step(text, bodies[loop["body"]]))


def _step(condition: str, body: list[str]) -> int:
    """By how much a loop's counter grows, where it is seen; 1 elsewhere. The windows of a product that waits for parts
    of its operands count by 2."""
    place = re.search(r"get-tuple-element\(\S+\), index=(\d+)", condition)
    root = next((line for line in body if line.lstrip().startswith("ROOT ")), "")
    operands = re.search(r" tuple\(([^)]*)\)", root)
    if not place or not operands:
        return 1
    names = re.sub(r"/\*.*?\*/", "", operands[1]).replace(" ", "").split(",")
    lines = {match[1]: line for line in body if (match := re.match(r"\s*(?:ROOT )?(%[\w.\-]+) = ", line))}
    added = re.search(r" add\((%[\w.\-]+), (%[\w.\-]+)\)", lines.get(names[int(place[1])], ""))
    for name in added.groups() if added else ():
        if constant := re.search(r" constant\((\d+)\)", lines.get(name, "")):
            return int(constant[1])
    return 1


def size(kind: str, shape: str) -> int:
    """Bytes of an array, of `SHAPE`'s two groups."""
    width = 1 if kind == "pred" else int(re.search(r"\d+", kind)[0]) / 8
    return math.ceil(math.prod(int(one) for one in shape.split(",") if one) * width)

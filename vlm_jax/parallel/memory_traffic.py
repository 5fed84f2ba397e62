"""What a compiled program reads from and writes to the main memory of a device (HBM), with loops multiplied out.

Bytes over the memory's bandwidth are a lower bound of a step's time, so where the text leaves room the smaller count is
taken. See `hbm_bytes` for what counts.
"""

import dataclasses
import functools
import math
import re
from collections import Counter

from vlm_jax.parallel.collectives import KINDS
from vlm_jax.parallel.hlo_text import DONE, GOING_ON, UnknownForm, called, computations, trips


def hbm_bytes(hlo: str) -> int:
    """Bytes that one device reads from and writes to its HBM in one run of a compiled program.

    Each instruction reads its operands and writes its results once, with a loop's times as often as it runs and a
    conditional as its costliest branch. Of them

    - buffers in other memory, whose layout has an `S(n)`, and single numbers cost nothing;
    - slices and gathers read what they result in; updates and scatters read the update and write as much, in place;
    - a fusion reads of each operand what is wanted of it inside, and writes its results, or only the updates of what
      it updates in place;
    - tuples, bitcasts, constants and buffers that are only set aside or joined cost nothing;
    - a copy or collective that is started and ended apart reads at its start and writes at its end, once.

    Not counted: the padding of tiles, operands that a kernel or a product reads several times over, and steps of
    collectives in between. A loop that does not tell how often it runs counts once.

    Args:
      hlo: `compiled.as_text()`.
    """
    lines, entry = computations(hlo)
    return _Program(lines).bytes_of(entry) if entry else 0


_FREE = set(
    "parameter constant tuple get-tuple-element bitcast bitcast-convert after-all partition-id replica-id opt-barrier "
    "optimization-barrier add-dependency domain while conditional call async async-done async-update".split()
)
_FREE_CALLS = 'custom_call_target="AllocateBuffer"', 'custom_call_target="ConcatBitcast"', DONE
_SLICES = {"slice", "dynamic-slice", "gather"}
_UPDATES = {"dynamic-update-slice", "scatter"}
_SAME = {"bitcast", "bitcast-convert", "copy", "reshape"}
_MIXING = {"dot", "convolution", "reduce", "reduce-window", "sort", "fft", "custom-call", "while", "call", *KINDS}
"""What needs all of its operands for any part of its result."""


@dataclasses.dataclass(frozen=True)
class _Array:
    elements: int
    width: float  # bytes of an element
    in_hbm: bool

    def part(self, elements: int) -> int:
        """Bytes in HBM of as many elements, at most all."""
        return math.ceil(min(elements, self.elements) * self.width) if self.in_hbm else 0


@dataclasses.dataclass(frozen=True)
class _Instruction:
    op: str
    results: tuple[_Array, ...]
    operands: tuple[str, ...]
    line: str

    @functools.cached_property
    def calls(self) -> str:
        """The computation of a fusion."""
        found = re.search(r"calls=%?([\w.\-]+)", self.line)
        return found[1] if found and self.op == "fusion" else ""

    @functools.cached_property
    def elements(self) -> int:
        return sum(array.elements for array in self.results)

    @functools.cached_property
    def size(self) -> int:
        """Bytes in HBM."""
        return sum(array.part(array.elements) for array in self.results)

    def part(self, elements: int) -> int:
        """Bytes in HBM of as many elements of an array; of several, all or none."""
        if len(self.results) == 1:
            return self.results[0].part(elements)
        return self.size if elements else 0


_LINE = re.compile(
    r"\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<result>.*?) (?P<op>[a-z][\w\-]*)"
    r"\((?P<operands>(?:[^()]+|\((?:[^()]+|\([^()]*\))*\))*)"
)
_ARRAY = re.compile(r"\b([a-z]\w*)\[([^\]]*)\](?:\{([^}]*)\})?")
_CODE = dict[str, _Instruction]


def _arrays(text: str) -> tuple[_Array, ...]:
    """Of a type such as `(f32[2,3]{1,0:T(8,128)S(1)}, s32[])`."""
    arrays = []
    for kind, shape, layout in _ARRAY.findall(text):
        bits = 8 if kind == "pred" else int((re.findall(r"\d+", kind) or [0])[0])
        elements = math.prod(int(size) for size in re.findall(r"\d+", shape))
        elsewhere = re.search(r"S\(0*[1-9]\d*\)", layout)
        arrays.append(_Array(elements, bits / 8, bool(shape) and not elsewhere))
    return tuple(arrays)


def _code(lines: list[str]) -> tuple[_CODE, str]:
    """A computation's instructions by name, in order, and the name of its root."""
    code: _CODE = {}
    root = ""
    for line in lines:
        if found := _LINE.match(line):
            names = re.findall(r"%([\w.\-]+)" if "%" in found["operands"] else r"[\w.\-]+", found["operands"])
            operands = tuple(name for name in names if name in code)
            code[found["name"]] = _Instruction(found["op"], _arrays(found["result"]), operands, line)
            root = found["name"] if found["root"] or not root else root
    return code, root


def _updates(code: _CODE, name: str) -> list[str]:
    """The instructions that, one after another, update a parameter in its place to give `name`; none if it is else."""
    found = []
    while code[name].op in _SAME | _UPDATES and code[name].operands:
        if code[name].op in _UPDATES:
            found.append(name)
        name = code[name].operands[0]
    return found if code[name].op == "parameter" else []


def _updated(code: _CODE, one: _Instruction) -> int:
    """Elements of what an update or scatter writes."""
    if one.op.startswith("dynamic"):
        return code[one.operands[1]].elements if len(one.operands) > 1 else 0
    return sum(code[name].elements for name in one.operands[len(one.operands) // 2 + 1 :])


class _Program:
    """The computations of a program, which are parsed and counted as they are needed."""

    def __init__(self, lines: dict[str, list[str]]) -> None:
        self._lines = lines
        self.parsed = functools.cache(lambda name: _code(lines.get(name, [])))
        self.bytes_of = functools.cache(self._bytes_of)
        self._fused = functools.cache(self._of_fused)

    def _bytes_of(self, name: str) -> int:
        """Of one run of a computation."""
        code, _ = self.parsed(name)
        inside = sum(times * self.bytes_of(part) for one in code.values() for part, times in self.parts(one))
        return inside + sum(self.own(code, one) for one in code.values())

    def parts(self, one: _Instruction) -> list[tuple[str, int]]:
        """The computations that an instruction runs, and how often; not what a reduction applies or a fusion holds."""
        if one.op not in ("while", "conditional", "call", "async-start"):
            return []
        parts = called(one.line)
        if one.op == "while":
            try:
                times = trips(one.line, self._lines)
            except (UnknownForm, LookupError):
                times = 1
            return [(name, times) for how, name in parts if how in ("body", "condition")]
        if one.op == "conditional":
            return [(max((name for _, name in parts), key=self.bytes_of), 1)] if parts else []
        return [(name, 1) for _, name in parts]

    def own(self, code: _CODE, one: _Instruction) -> int:
        """Of one run of an instruction, without the `parts` that it runs."""
        op, operands = one.op.removesuffix("-start"), [code[name] for name in one.operands]
        started = op != one.op or op in ("send", "recv")
        if op in _FREE or (op == "custom-call" and any(target in one.line for target in _FREE_CALLS)):
            return 0
        if op.endswith("-done"):
            return 0 if op.removesuffix("-done") in _UPDATES else one.size
        if one.calls in self._lines:
            return self._of_fusion(code, one)
        written = 0 if started else one.size
        if op in _SLICES and operands:
            given = one.results[len(operands) if started else 0 :][:1]  # a start: (its operands, what it gives, …)
            written += sum(operands[0].part(array.elements) for array in given)
            return written + sum(other.size for other in operands[1:])
        if op in _UPDATES and operands:
            targets = 1 if op.startswith("dynamic") else len(operands) // 2
            return sum(other.size for other in operands[targets:]) + operands[0].part(_updated(code, one))
        return written + sum(code[name].size for name in set(one.operands))

    def _of_fusion(self, code: _CODE, one: _Instruction) -> int:
        """Of one run of a fusion, from what its computation wants of its operands and writes."""
        wanted, written = self._fused(one.calls)
        read: Counter = Counter()
        for number, name in enumerate(one.operands):
            read[name] += wanted.get(number, 0)
        total = one.size
        if len(written) == len(one.results):
            total = sum(array.part(elements) for array, elements in zip(one.results, written, strict=True))
        return total + sum(code[name].part(elements) for name, elements in read.items())

    def _of_fused(self, name: str) -> tuple[dict[int, int], list[int]]:
        """Of a fusion's computation: {parameter: elements it reads}, and those it writes of each result."""
        code, root = self.parsed(name)
        if not root:
            return {}, []
        results = code[root].operands if code[root].op == "tuple" else [root]
        written = [elements for result in results for elements in self._written(name, code, result)]
        wanted = self._wanted(name, code, root, {one for result in results for one in _updates(code, result)})
        numbers = {key: re.search(r" parameter\((\d+)\)", one.line) for key, one in code.items()}
        return {int(number[1]): wanted[key] for key, number in numbers.items() if number}, written

    def _written(self, name: str, code: _CODE, result: str) -> list[int]:
        """Elements that are written for what is an element of a fusion's result, or all of it."""
        one = code[result]
        if one.op == "parameter" or self._goes_on(name, one):
            return [0] * len(one.results)
        if updates := _updates(code, result):
            return [sum(_updated(code, code[update]) for update in updates)]
        sizes = [array.elements for array in one.results]
        if 'custom_call_target="AsyncCollectiveStart"' in one.line:  # (what is sent, what is received, …)
            return [0] * len(one.operands) + sizes[len(one.operands) :]
        return self._fused(one.calls)[1] if one.calls else sizes

    @staticmethod
    def _goes_on(name: str, one: _Instruction) -> bool:
        """Whether this is a collective that was counted where it was started."""
        return DONE in one.line or (GOING_ON in name and one.op in KINDS)

    def _wanted(self, name: str, code: _CODE, root: str, in_place: set[str]) -> Counter:
        """How many elements of each instruction inside a fusion are used: the sum of slices, the most of others."""
        slices, most, wanted = Counter(), Counter(), Counter()
        for key, one in reversed(code.items()):
            everything = key == root or key in in_place
            wanted[key] = one.elements if everything else min(one.elements, slices[key] + most[key])
            if not wanted[key] or self._goes_on(name, one):
                continue
            for number, operand in enumerate(one.operands):
                size = code[operand].elements
                if (one.op == "tuple" and code[operand].op == "parameter") or (number == 0 and key in in_place):
                    continue  # it is handed through, or written over
                if one.calls:
                    slices[operand] += self._fused(one.calls)[0].get(number, 0)
                elif number == 0 and one.op in _SLICES:
                    slices[operand] += wanted[key]
                elif one.op in _MIXING or wanted[key] == one.elements:
                    most[operand] = size
                else:
                    most[operand] = max(most[operand], min(size, wanted[key]))
        return wanted

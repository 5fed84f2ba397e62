"""What larger slices bring a full fine-tuning of the 3B and the 7B, on paper: bounds, what binds, and the cost.

    .venv/bin/python benchmarks/tpu_scaling.py --output=runs/tpu_memory

Reads what `tpu_memory.py` compiled of the lines "full 3B", "full 7B" and "full 3B two slices" (it compiles them where
they are not there) and scales them: products and main memory with the rows of a chip; what FSDP sends by `fsdp_needs`'
formulas, with the share that the compiled program sends of it; and what crosses the network by trained parameters.
Parameters are divided over at most 32 chips (`mesh.fsdp`), copies of that are the data axis; v5e slices have at most
256 chips, and from there on gradients cross the network between two slices once.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

from tpu_memory import compiled
from vlm_jax.parallel.chips import PRICED, TPUS
from vlm_jax.parallel.collectives import BETWEEN

LINES = ("full 3B", "full 7B")
SIZES = (8, 32, 128, 512)
LARGEST_SLICE, DIVIDED = 256, 32
TOKENS = 2048
"""Of a row."""
ROWS_A_STEP = 512
"""For the table of fixed tokens a step: 1,048,576 tokens."""


@dataclasses.dataclass(frozen=True)
class Line:
    """A step of a row a chip, as compiled: FLOPs, bytes of main memory and sent bytes of a chip.

    Attributes:
      shards: bytes of all gradients in bfloat16; crossing: what of them goes between two slices, of all chips of one.
      model: FLOPs that the model asks for, a row.
    """

    products: float
    traffic: float
    sent: float
    shards: float
    crossing: float
    model: float
    chips: int

    @classmethod
    def of(cls, found: dict, slices: dict) -> "Line":
        """Of a compiled line, and of that on two slices."""
        crossed = sum(size for kind, (_, size) in slices["collectives"].items() if kind.endswith(BETWEEN))
        a_parameter = crossed * 12 / slices["trained"]
        chips = found["devices"]
        sent = sum(size for _, size in found["collectives"].values())
        parameters = found["trained"] * chips / 12  # a master and two moments, float32, as above
        return cls(
            products=found["flops"] / chips,
            traffic=found["traffic"],
            sent=sent,
            shards=2 * parameters,
            crossing=a_parameter * parameters,
            model=found["model_flops"] / chips,
            chips=chips,
        )

    def bounds(self, chips: int, rows: float) -> dict[str, float]:
        """Seconds of a step with so many rows on each of so many chips, one row at a time."""
        chip = TPUS["v5e"]
        fsdp = min(chips, DIVIDED)
        gathers = self.sent * ((fsdp - 1) / fsdp) / ((self.chips - 1) / self.chips)
        copies, slices = chips // fsdp, -(-chips // LARGEST_SLICE)
        summed = 2 * self.shards / fsdp
        within = copies // slices
        return {
            "products": rows * self.products / chip.flops,
            "memory": rows * self.traffic / chip.bandwidth,
            "links": (rows * gathers + summed * (within - 1) / within) / chip.links,
            "network": 2 * self.crossing / fsdp * (slices - 1) / slices / chip.network,
        }


def tables(line: Line) -> None:
    for title, rows_of in (
        ("a row of 2,048 tokens a chip", lambda chips: 1),
        (f"{ROWS_A_STEP} rows a step", lambda chips: ROWS_A_STEP / chips),
    ):
        print(f"\n{title}:\n")
        print(
            "| chips | tokens a step | products / memory / links / network, ms | binds | MFU at most | $ a M tokens |"
        )
        print("|---|---|---|---|---|---|")
        for chips in SIZES:
            rows = rows_of(chips)
            found = line.bounds(chips, rows)
            binds = max(found, key=found.__getitem__)
            seconds, tokens = found[binds], rows * chips * TOKENS
            mfu = rows * line.model / TPUS["v5e"].flops / seconds
            cost = chips * TPUS["v5e"].price / 3600 * seconds / tokens * 1e6
            times = " / ".join(f"{1000 * found[name]:.0f}" for name in ("products", "memory", "links", "network"))
            print(f"| {chips} | {tokens:,.0f} | {times} | {binds} | {mfu:.0%} | {cost:.3f} |")
    one = line.bounds(DIVIDED, 1)
    least = TOKENS * one["links"] / one["products"]
    print(f"\nLinks bind below {least:,.0f} tokens a chip; a row more on a chip changes no bound's share.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of tpu_memory.py's results")
    options = parser.parse_args()
    print(f"v5e, {TPUS['v5e'].price:.2f} $ a chip and hour: {PRICED}. Estimates, not measurements.")
    found = {name: compiled(name, options.output) for name in (*LINES, "full 3B two slices")}
    if errors := [f"{name}: {one['error']}" for name, one in found.items() if "error" in one]:
        sys.exit("\n".join(errors))
    for name in LINES:
        print(f"\n**{name}**")
        tables(Line.of(found[name], found["full 3B two slices"]))


if __name__ == "__main__":
    main()

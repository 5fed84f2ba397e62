"""The quickstart with several seeds: other images, another order of training, one table.

    .venv/bin/python benchmarks/quickstart_seeds.py --seeds=0,1,2

Each seed is a whole `make quickstart` in a folder of its own under --output; finished ones are only read.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from data_pipeline import quickstart_report

ROOT = Path(__file__).resolve().parents[1]
SPLITS = {"synthetic": "unseen views", "photo": "on photographs", "held_out": "plain scenes"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="0,1,2", help="seeds with commas between (default: %(default)s)")
    parser.add_argument("--output", default="runs/quickstart_seeds", help="folder of the runs (default: %(default)s)")
    options, more = parser.parse_known_args()
    rows: dict[str, list[tuple[float | None, float]]] = {}
    sizes = {}
    for seed in options.seeds.split(","):
        output = Path(options.output) / f"seed-{seed}"
        settings = [f"--objects=seed={seed}", f"--train=train.seed={seed}", *more]
        quickstart = [sys.executable, str(ROOT / "scripts" / "quickstart.py"), f"--output={output}", *settings]
        subprocess.run(quickstart, check=True, stdout=subprocess.DEVNULL)
        after, swapped = (json.loads((output / name / "report.json").read_text()) for name in ("after", "swapped"))
        for split, name in SPLITS.items():
            part = after["by"]["split"][split]
            rows.setdefault(name, []).append((quickstart_report.before(part), part["mean"]))
            sizes[name] = part["n"]
        rows.setdefault("wrong images", []).append((swapped["majority"], swapped["mean"]))
        sizes["wrong images"] = swapped["n"]
    print(f"seeds {options.seeds}; share of right answers before → after, each seed, then the mean after")
    for name, pairs in rows.items():
        first = "blind" if name == "wrong images" else "before"
        each = "   ".join(f"{before:.1%} → {after:.1%}" for before, after in pairs)
        mean = statistics.mean(after for _, after in pairs)
        print(f"{name:15} n {sizes[name]:4}   {first:6} {each}   mean {mean:.1%}")


if __name__ == "__main__":
    main()

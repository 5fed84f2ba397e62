"""Alignments with other seeds side by side: every student's score, and what the gap brings beyond its controls.

    .venv/bin/python benchmarks/parity_table.py --workdirs=runs/parity/0,runs/parity/1,runs/parity/2

Reads what `scripts/align_parity.py` wrote. A score is the mean over the seeds, with the lowest and the highest beside
it. A difference is taken question by question and averaged over the seeds; its 95 % interval is a bootstrap over
images, which says how sure it is for these trainings, and each seed's own difference stands beside it.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vlm_jax.evaluation.report.summary import SET, cluster
from vlm_jax.evaluation.runner import Prediction, read_predictions
from vlm_jax.evaluation.statistics import interval

Scored = dict[str, dict[str, Prediction]]
"""{who: {id of a question: what was said}}."""


def score(one: Prediction) -> float:
    assert one.score is not None, f"{one.id}: has no answer to be compared with"
    return one.score


def scored(folder: Path) -> Scored:
    """Everyone that was asked in an alignment; the questions of general sets apart, as `who, general`."""
    found: Scored = {}
    for path in sorted((folder / "evaluation").glob("*/predictions.jsonl")):
        everything = read_predictions(path)
        for general in (False, True):
            own = {one: said for one, said in everything.items() if (SET in said.groups) == general}
            if own:
                found[f"{path.parent.name}{', general' if general else ''}"] = own
    return found


def mean(predictions: dict[str, Prediction]) -> float:
    return float(np.mean([score(one) for one in predictions.values()]))


def line_of(who: str, seeds: list[Scored]) -> str:
    own = [mean(one[who]) for one in seeds]
    return f"{who:26} {np.mean(own):6.1%}  ({min(own):.1%} to {max(own):.1%})  n {len(seeds[0][who]):,}"


def difference_of(who: str, other: str, seeds: list[Scored]) -> str:
    ids = sorted(seeds[0][who])
    each = np.array([[score(one[who][id]) - score(one[other][id]) for id in ids] for one in seeds])
    low, high = interval(each.mean(axis=0).tolist(), [cluster(seeds[0][who][id]) for id in ids])
    by_seed = ", ".join(f"{100 * value:+.1f}" for value in each.mean(axis=1))
    points = f"{100 * each.mean():+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
    return f"{who} less {other}: {points}; by seed {by_seed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdirs", required=True, help="of alignments that differ in their seeds, commas between")
    folders = [Path(name) for name in parser.parse_args().workdirs.split(",")]
    seeds = [scored(folder) for folder in folders]
    reports = [json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in folders]
    for number in range(len(reports[0]["rounds"])):
        own = [report["rounds"][number] for report in reports]
        names = ("written", "compared", *own[0]["outcomes"])
        counts = {name: [one[name] if name in one else one["outcomes"][name] for one in own] for name in names}
        print(f"round {number + 1}: " + "; ".join(f"{name} {', '.join(map(str, by))}" for name, by in counts.items()))
    both = [who for who in seeds[0] if all(who in one for one in seeds)]
    print("\n".join(line_of(who, seeds) for who in both))
    for who in both:
        first, comma, general = who.partition(", ")
        if not first.endswith("-kept"):
            continue
        others = ["before", *(first.removesuffix("kept") + arm for arm in ("random", "all"))]
        others += ["round-1-kept"] if first != "round-1-kept" else []
        for other in (f"{one}{comma}{general}" for one in others):
            if other in both:
                print(difference_of(who, other, seeds))


if __name__ == "__main__":
    main()

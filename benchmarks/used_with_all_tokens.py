"""What models that were trained on some of the visual tokens answer with all of them.

    .venv/bin/python benchmarks/used_with_all_tokens.py --sweep=runs/fewer_tokens/steps

Asks every finished run of a sweep (`configs/ablations/fewer_tokens.py`) its benchmark again with all tokens, and prints
both scores as the mean over seeds, and the second as a share of the first row's: of training with all tokens. What is
answered is kept in each cell's folder, so that the same command goes on.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from data_pipeline.evaluation_run import Evaluation, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, required=True, help="the sweep's --output")
    options = parser.parse_args()
    results = [json.loads(line) for line in (options.sweep / "results.jsonl").read_text().splitlines()]
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for result in results:
        cell = options.sweep / "cells" / result["cell"]
        settings = json.loads((cell / "evaluation" / "report.json").read_text())["settings"]
        evaluation = Evaluation(
            model=str(cell / "run"),
            benchmark=settings["benchmark"],
            output=str(cell / "with_all_tokens"),
            metric=settings["metric"],
            max_new_tokens=settings["max_new_tokens"],
            visual_tokens=1.0,
        )
        report = evaluate(evaluation)
        scores[", ".join(result["axes"].values())].append((result["mean"], report["mean"]))
    whole = statistics.mean(after for _, after in next(iter(scores.values())))
    print("| trained with | seeds | as trained | with all tokens | of training with all |")
    print("|---|---|---|---|---|")
    for name, pairs in scores.items():
        own, after = (statistics.mean(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {len(pairs)} | {own:.1%} | {after:.1%} | {after / whole:.0%} |")


if __name__ == "__main__":
    main()

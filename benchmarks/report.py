"""How long a report of many predictions takes to make, and how large it is.

    .venv/bin/python benchmarks/report.py                      # 10,000 predictions with one earlier evaluation beside
    .venv/bin/python benchmarks/report.py --predictions=2000 --metric=squad_f1

Answers are drawn, images are photographs of a million pixels each, one for every four questions; the time is that of
`report.json`, both plots and `report.html`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image

from vlm_jax.evaluation import report
from vlm_jax.evaluation.runner import Prediction

SIDE = 1000


def drawn(count: int, metric: str, seed: int) -> list[Prediction]:
    """Predictions with the groups of a corpus of 500 facts; scores are 0 or 1, of F1 hundredths between."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        score = round(float(rng.random()), 2) if metric == "squad_f1" else float(rng.integers(0, 2))
        groups = {"fact_id": f"fact-{number % 500}", "task": f"task-{number % 8}", "split": f"split-{number % 3}"}
        found.append(
            Prediction(
                f"q{number}",
                f"What is number {number}?",
                "an answer",
                ["an answer", "another"],
                score,
                metric,
                groups,
                words=f"{number}",
                images=f"{number // 4}",
                probability=round(float(rng.random()), 4),
                tokens=3,
                visual_tokens=int(rng.choice([64, 256, 1024])),
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--metric", default="exact", help="exact or squad_f1 (default: %(default)s)")
    options = parser.parse_args()
    after, before = (drawn(options.predictions, options.metric, seed) for seed in (0, 1))
    baselines = {"before": {one.id: one for one in before}}
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (SIDE // 8, SIDE // 8, 3), np.uint8)
        photograph = PIL.Image.fromarray(pixels).resize((SIDE, SIDE), PIL.Image.Resampling.BICUBIC)
        path = Path(folder) / "photograph.jpg"
        photograph.save(path)
        begun = time.perf_counter()
        summary = report.summarise(after, baselines)
        told = json.dumps(summary, indent=2)
        figures = time.perf_counter()
        pictures = report.plots_of(summary)
        page = report.page(
            after, summary, lambda id: [str(path)], title="report", baselines=baselines, pictures=pictures
        )
        ended = time.perf_counter()
    print(
        f"{options.predictions:,} predictions by {options.metric}: {ended - begun:.1f} s ({figures - begun:.1f} s of "
        f"figures), report.html {len(page.encode()) / 1e6:.1f} MB, report.json {len(told.encode()) / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()

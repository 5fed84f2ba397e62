r"""What is learned from fewer visual tokens: after equal steps, after equal time, and used with all tokens.

    .venv/bin/python benchmarks/fewer_tokens.py --sweep=runs/fewer_tokens/sweep \
        --results=runs/fewer_tokens/results.jsonl
    .venv/bin/python benchmarks/fewer_tokens.py --results=docs/fewer_tokens.jsonl --plot=docs/fewer_tokens

The first asks every finished run of the sweep (`configs/ablations/fewer_tokens.py`) its benchmark twice more: its
checkpoint after as many steps as all tokens had, and, of those that trained on a quarter, the last one with all tokens.
What is known already is not asked again, and a line for each run is added to the results. Both print the tables of all
results, and the second draws them. Results of several machines may be joined by joining their lines.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.evaluation import sweep_report
from vlm_jax.evaluation.sweep import Cell

MEASURES = {
    "steps": "after equal steps",
    "time": "after equal time",
    "all": "after equal time, used with all tokens",
}
MIXED = " and, for the last tenth, all, "
FIGURES = ("mean", "low", "high", "n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", type=Path, help="the sweep's --output: its runs are asked")
    parser.add_argument("--results", type=Path, required=True, help="a line for each run, kept and added to")
    parser.add_argument("--plot", default="", help="beginning of the names of the plots, .steps.png and .time.png")
    options = parser.parse_args()
    results = read(options.results)
    for result in read(options.sweep / "results.jsonl").values() if options.sweep else ():
        if result["cell"] not in results:
            results[result["cell"]] = asked(options.sweep / "cells" / result["cell"], result)
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in results.values()]
            options.results.write_text("".join(lines), encoding="utf-8")
    for measure, title in MEASURES.items():
        rows = rows_of(list(results.values()), measure)
        if not rows:
            continue
        print(sweep_report.table(rows, title=f"{title[0].upper()}{title[1:]}"))
        if options.plot and measure != "all":
            path = Path(f"{options.plot}.{measure}.png")
            sweep_report.plot(rows, path, x_axis="visual tokens", title=title, score="normalised")


def read(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return {(result := json.loads(line))["cell"]: result for line in lines}


def asked(cell: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a cell of the sweep, with what its run answered at its checkpoint, and with all tokens."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # configs/ is no package that is installed
    from configs.ablations.fewer_tokens import STEPS
    from data_pipeline.evaluation_run import evaluate
    from data_pipeline.evaluation_settings import Evaluation

    settings = json.loads((cell / "evaluation" / "report.json").read_text())["settings"]
    same = {name: settings[name] for name in ("benchmark", "metric", "max_new_tokens")}
    seconds = [json.loads(line)["seconds"] for line in (cell / "run" / "metrics.jsonl").read_text().splitlines()]

    def score(steps: int, output: str, **more: Any) -> dict[str, Any]:
        """After so many steps: the end is known already, where nothing else is asked for."""
        report, model = result, cell / "run" / "checkpoints" / str(steps)
        if more or steps < len(seconds):
            report = evaluate(Evaluation(model=str(model), output=str(cell / output), **same, **more))
        return {**{name: report[name] for name in FIGURES}, "steps": steps, "seconds": sum(seconds[:steps])}

    (label,) = result["axes"].values()
    # One of the two is the end of the run, and the other its first checkpoint.
    first = result["settings"].get("checkpoint.every", STEPS)
    in_time = len(seconds) if len(seconds) > STEPS else first
    found = {"cell": result["cell"], "label": label, "seed": result["seed"], "time": score(in_time, "equal_time")}
    if MIXED not in label:  # whose last steps, which see all tokens, are not among the first ones
        found["steps"] = score(STEPS, "equal_steps")
    if label == "100 %":
        found["all"] = found["time"]
    elif label.startswith("25 %"):
        found["all"] = score(in_time, "with_all_tokens", visual_tokens=1.0)
    return found


def rows_of(results: Sequence[Mapping[str, Any]], measure: str) -> list[sweep_report.Row]:
    """The rows of a measure, by share and method."""
    scored = [one for one in results if measure in one]
    cells = {one["cell"]: Cell(labels_of(one["label"]), one["seed"], {}) for one in scored}
    named = {cells[one["cell"]].name: {**one[measure], "train_seconds": one[measure]["seconds"]} for one in scored}
    return sweep_report.rows_of(list(cells.values()), named)


def labels_of(label: str) -> dict[str, str]:
    share, mixed, method = label.partition(MIXED)
    if mixed:
        return {"visual tokens": share, "method": f"{method}, the last tenth with all"}
    share, _, method = label.partition(", ")
    return {"visual tokens": share, "method": method or "all"}


if __name__ == "__main__":
    main()

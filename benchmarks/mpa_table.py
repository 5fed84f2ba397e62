"""MPA's published outputs by MPA's own matching, and by the rules of the benchmarks that they are of.

    .venv/bin/python benchmarks/mpa_table.py

The outputs are eight answers of Qwen2-VL-2B to each of three benchmarks (tests/data/mpa). Printed are how many are
right by each metric, and the answers on which two of them differ. Of ChartQA and TextVQA one accepted answer is
published; of OK-VQA the ten people's are there too, and its official rule goes by these.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from vlm_jax.evaluation.metrics import label, score

DATA = Path(__file__).resolve().parents[1] / "tests" / "data" / "mpa"
TASKS = {
    "ChartQA": ("chartVQA", "", ("relaxed_accuracy", "normalised")),
    "OK-VQA": ("okVQA", "okvqa_val_first40.json", ("vqa_official", "normalised")),
    "TextVQA": ("textVQA", "", ("normalised", "anls")),
}
"""{benchmark: (name in its files, file with the ten people's answers, metrics beside MPA's own)}."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    differing = []
    for benchmark, (name, people_file, metrics) in TASKS.items():
        outputs = _read(f"Eval_Qwen2-VL-2B-Instruct_{name}.json")
        people = {entry["question_id"]: entry["answers"] for entry in _read(people_file)} if people_file else {}
        cells = []
        for metric in ("mpa_substring", *metrics):
            official = people if metric == "vqa_official" else {}
            scores = [_score(metric, one, official) for one in outputs]
            cells.append(f"{label(metric)} {sum(scores):.4g}")
            differing += [
                f"{benchmark}: {one['predictions']!r} for {one['GT_answer']!r}: {metric} {value:.3g}, "
                f"mpa_substring {by_substring:.3g}"
                for one, value in zip(outputs, scores, strict=True)
                if abs(value - (by_substring := _score("mpa_substring", one, {}))) > 1e-9
            ]
        print(f"{benchmark:8} of {len(outputs)}: {', '.join(cells)}")
    print(*differing, sep="\n")


def _score(metric: str, output: dict, people: dict[int, Sequence[str]]) -> float:
    return score(metric, output["predictions"], people.get(output["question_id"], output["GT_answer"]))


def _read(name: str) -> list[dict]:
    return json.loads((DATA / name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

"""What seeds come to: intervals over them or over questions, the tables, and a plot with everything in it."""

import math

import PIL.Image
import pytest

from vlm_jax.evaluation import sweep_report
from vlm_jax.evaluation.sweep import cells_of, errors_of, sweep_config

AXES = {
    "amount": {"5×": {"data.share": 1 / 3}, "15×": {"data.share": 1.0}},
    "training": {"full": {}, "LoRA": {"lora.rank": 8}},
}


def cells(**more):
    return cells_of(sweep_config(**{"train": "t.py", "axes": AXES, "benchmark": "b.jsonl", **more}))


def results(given, scores):
    return {
        cell.name: {"mean": score, "low": score - 0.1, "high": score + 0.1, "n": 50, "train_seconds": 90.0}
        for cell, score in zip(given, scores, strict=False)
        if score is not None
    }


def test_cells_are_every_combination_one_seed_after_the_other():
    given = cells(seeds=(3, 4), set={"model.path": "m"})
    assert [cell.title for cell in given][:3] == [
        "amount 5×, training full, seed 3",
        "amount 5×, training LoRA, seed 3",
        "amount 15×, training full, seed 3",
    ]
    assert len({cell.name for cell in given}) == 8 and given[-1].name == "amount-15_training-LoRA_seed-4"
    assert given[-1].settings == {"model.path": "m", "data.share": 1.0, "lora.rank": 8, "train.seed": 4}


def test_errors_of_a_sweep_are_told_together():
    config = sweep_config(
        train="t.py",
        set={"train.seed": 1, "lora.rank": 4},
        axes={**AXES, "none": {}},
        seeds=(1, 1),
        metric="bleu",
        x_axis="rank",
    )
    reported = "\n".join(errors_of(config))
    for part in (
        "axes.none: has no labels",
        "seeds is (1, 1)",
        "benchmark is ''",
        "metric is 'bleu'",
        "x_axis is 'rank'; wanted one of amount, training, none",
        "train.seed is given by config.seeds and by config.set",
        "lora.rank is given by config.set and by config.axes.training",
    ):
        assert part in reported
    alike = sweep_config(train="t.py", axes={"a": {"1 %": {}, "1 ×": {}}}, benchmark="b")
    assert errors_of(alike) == ["config.axes: two cells would have the folder a-1_seed-0; name their labels otherwise"]


def test_two_seeds_or_more_have_an_interval_of_student_and_one_that_of_its_questions():
    given = cells(axes={"a": {"x": {}}}, seeds=(0, 1, 2))
    (row,) = sweep_report.rows_of(given, results(given, (0.5, 0.6, 0.7)))
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert (row.mean, row.low, row.high) == pytest.approx((0.6, 0.6 - half, 0.6 + half), abs=1e-6)
    assert (row.over, row.questions, row.seconds) == ("seeds", 50, 90.0)
    (row,) = sweep_report.rows_of(given, results(given, (0.5, 0.9)))
    assert (row.low, row.high, len(row.scores), row.planned) == (0.0, 1.0, 2, 3)  # 0.7 ± 2.54
    (row,) = sweep_report.rows_of(given, results(given, (0.5,)))
    assert (row.mean, row.low, row.high, row.over) == (0.5, 0.4, 0.6, "questions")
    (row,) = sweep_report.rows_of(given, results(given, (0.5, 0.5, 0.5)))
    assert (row.low, row.high, row.over) == (0.4, 0.6, "questions")  # t would be sure of itself for nothing
    (row,) = sweep_report.rows_of(given, {})
    assert math.isnan(row.mean) and row.over == ""


def test_tables_say_what_is_missing_and_what_intervals_are_over():
    given = cells(seeds=(0, 1))
    rows = sweep_report.rows_of(given, results(given, (0.5, 0.2, 0.1, None, 0.6, 0.2, None, None)))
    reported = sweep_report.table(rows, title="here")
    lines = [line for line in reported.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 6
    parts = [[part.strip() for part in line.split("|")[1:-1]] for line in lines[2:]]
    assert parts[0] == ["5×", "full", "2", "55.0%", "0.0% – 100.0%", "seeds", "50.0%, 60.0%", "50", "0:01:30"]
    assert parts[1][2:6] == ["2", "20.0%", "10.0% – 30.0%", "questions"]
    assert parts[2][2:6] == ["1 of 2", "10.0%", "0.0% – 20.0%", "questions"]
    assert parts[3][2:] == ["0 of 2", *["–"] * 6]
    assert reported.count("over questions") == 2 and "over seeds: Student's t" in reported
    plain = sweep_report.comma_separated(rows).splitlines()
    assert plain[0] == "amount,training,seeds,mean,low,high,interval_over,questions,train_seconds"
    assert plain[1].startswith("5×,full,2,0.55,0.0,1.0,seeds,50,90.0") and plain[4] == "15×,LoRA,0,,,,,,"


@pytest.mark.parametrize("axes, x_axis", [(AXES, "amount"), (AXES, "training"), ({}, "")])
def test_a_plot_is_drawn_of_what_is_finished(tmp_path, axes, x_axis):
    given = cells(axes=axes, seeds=(0,))
    rows = sweep_report.rows_of(given, results(given, (0.5, 0.6)))
    sweep_report.plot(rows, tmp_path / "plot.png", x_axis=x_axis, title="here", score="normalised")
    with PIL.Image.open(tmp_path / "plot.png") as image:
        assert min(image.size) > 700 and len(image.convert("L").getcolors()) > 10

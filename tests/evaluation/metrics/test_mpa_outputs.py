"""MPA's published outputs of Qwen2-VL-2B: its own matching, and the rules of the benchmarks beside it."""

import json
import sys
from pathlib import Path

from benchmarks import mpa_table
from vlm_jax.evaluation.metrics import score

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data" / "mpa"


def outputs(task):
    return json.loads((DATA / f"Eval_Qwen2-VL-2B-Instruct_{task}.json").read_text(encoding="utf-8"))


def total(metric, task, answers=lambda one: one["GT_answer"]):
    return sum(score(metric, one["predictions"], answers(one), one["GT_question"]) for one in outputs(task))


def test_its_substring_accuracy_is_the_published_one():
    counts = {task: total("mpa_substring", task) for task in ("chartVQA", "okVQA", "textVQA")}
    assert counts == {"chartVQA": 6, "okVQA": 3, "textVQA": 5}


def test_the_rules_of_the_benchmarks_say_something_else():
    # 2020 is within 5 % of 2011, so that relaxed accuracy takes a wrong year for right.
    assert total("relaxed_accuracy", "chartVQA") == 7 and total("exact", "chartVQA") == 6
    # One of ten answers is in the file of TextVQA, so its own rule, which wants all, has nothing to go by.
    assert total("normalised", "textVQA") == 5


def test_of_okvqa_the_official_rule_has_the_same_sum_and_other_answers():
    entries = json.loads((DATA / "okvqa_val_first40.json").read_text(encoding="utf-8"))
    people = {entry["question_id"]: entry["answers"] for entry in entries}
    right = {
        one["predictions"]: (
            score("mpa_substring", one["predictions"], one["GT_answer"]),
            score("vqa_official", one["predictions"], people[one["question_id"]]),
        )
        for one in outputs("okVQA")
    }
    assert sum(official for _, official in right.values()) == 3
    # Four of ten people said "teddy bear"; none said "shopping", which has "shop" in it.
    assert {said: both for said, both in right.items() if both[0] != both[1]} == {
        "teddy bear": (0, 1),
        "shopping": (1, 0),
    }


def test_the_documentation_prints_what_the_benchmark_prints(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mpa_table.py"])
    mpa_table.main()
    printed = capsys.readouterr().out.splitlines()
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert len(printed) > 5 and "\n".join(f"    {line}" for line in printed) in text

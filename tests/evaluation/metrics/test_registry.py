"""Metrics by name: what is known of each, what each needs, and that asking for one loads next to nothing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vlm_jax
from vlm_jax.errors import InputError
from vlm_jax.evaluation import metrics
from vlm_jax.evaluation.metrics import METRICS, error_in, label, score

ROOT = Path(__file__).resolve().parents[3]


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="^metric 'vqa_evalia': did you mean 'vqa_evalai'\\?$"):
        vlm_jax.score("vqa_evalia", "a", ["a"])
    with pytest.raises(InputError, match="^metric 'zzz': there are exact, normalised, contains, vqa_official"):
        score("zzz", "a", ["a"])
    assert "normalised for your own data" in error_in("accuracy") and "vqa_official" in error_in("vqa")
    assert error_in("final_anser:anls") == "did you mean 'final_answer:anls'?"
    with pytest.raises(InputError, match="did you mean 'squad_em'"):
        score("final_answer:squad-em", "a", ["a"])


def test_no_accepted_answer_is_refused_by_every_metric():
    for name, metric in METRICS.items():
        needed = {key: value for key, value in {"bem": "folder", "ask": str}.items() if key in metric.needs}
        with pytest.raises(InputError, match="^no accepted answer to score against$"):
            score(name, "a", [], "Q?", **needed)


def test_a_metric_says_what_it_lacks_and_what_it_has_no_use_for():
    with pytest.raises(InputError, match="^metric 'bem': needs the folder of a BertForSequenceClassification"):
        score("bem", "a", "a", "Q?")
    with pytest.raises(InputError, match="^metric 'bem': needs the question's text"):
        score("bem", "a", "a", bem="folder")
    with pytest.raises(InputError, match="^metric 'judge': needs somebody to ask"):
        score("judge", "a", "a", "Q?")
    with pytest.raises(InputError, match="^metric 'exact': has no use for options$"):
        score("exact", "a", "a", options=["a", "b"])
    assert error_in("bem", bem="", ask=None).startswith("needs the folder")
    assert error_in("bem", bem="folder", ask=None) == "" == error_in("encyclopedic_vqa", bem="")
    assert error_in("exact", bem="folder") == "has no use for bem"
    assert error_in("judge", bem="", ask=None).startswith("needs somebody to ask")


def test_answers_that_are_no_texts_are_refused():
    for answers in (47, None):
        with pytest.raises(TypeError):  # nothing that could be gone through
            score("exact", "47", answers)
    for answers in ([47], ["47", None], {"range": [0, 2]}, [b"47"]):
        with pytest.raises(InputError, match="^metric 'exact': predictions and answers are texts, and one is "):
            score("exact", "47", answers)
    with pytest.raises(InputError, match="texts or ranges, and one is 47"):
        score("infoseek", 47, "47")


def test_each_metric_has_a_line_and_a_version():
    assert label("vqa_evalai") == "vqa_evalai/1" and label("final_answer:anls") == "final_answer:anls/1"
    lines = metrics.described().split("; ")
    assert [line.partition(": ")[0] for line in lines] == [name for name in METRICS if name != "judge"]
    for name, metric in METRICS.items():
        assert name == metric.name and metric.version >= 1 and 10 < len(metric.about) < 80


def test_the_documentation_has_a_row_for_each_metric_and_no_other():
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text[text.index("| metric | for |") :].split("\n\n")[0].splitlines()[2:]
    named = [name for row in table for name in re.findall(r"`(\w+)`", row.split(" | ")[0])]
    assert sorted(named) == sorted(METRICS)


def test_the_end_of_a_chain_of_thought_may_stand_before_any_metric():
    thought = "The door is red.\nIt was 1889.\n**Answer:** 1889"
    assert score("squad_em", thought, "1889") == 0.0
    for name in ("squad_em", "exact", "anls", "relaxed_accuracy", "encyclopedic_vqa"):
        assert score(f"final_answer:{name}", thought, "1889") == 1.0
    assert score("final_answer:infoseek", thought, {"range": [1880, 1890]}) == 1.0
    assert score("final_answer:vqa_official", thought, ["1889"] * 4 + ["x"]) == 1.0


def test_scores_are_numbers_from_0_to_1():
    for name, metric in METRICS.items():
        if not metric.needs and name != "multiple_choice":
            for said in ("", "cat", "3.5", "the cat sat", "ก้อน"):
                value = score(name, said, ["cat", "3.5", "a cat"])
                assert isinstance(value, float) and 0.0 <= value <= 1.0


def test_scoring_loads_neither_arrays_nor_models():
    code = (
        "import sys, vlm_jax\n"
        "assert vlm_jax.score('vqa_evalai', 'two', ['2'] * 10) == 1.0\n"
        "assert vlm_jax.score('contains', 'a red door', 'red') == 1.0\n"
        "assert 'rapidfuzz' not in sys.modules\n"
        "assert vlm_jax.score('anls', 'kitten', 'sitten') > 0.8\n"
        "print(*({'numpy', 'jax', 'torch', 'transformers', 'scipy', 'PIL', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

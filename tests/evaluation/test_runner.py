"""Asking, scoring and reporting: nothing skipped, nothing asked twice, nothing unescaped."""

import dataclasses
import json

import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation import report, runner
from vlm_jax.evaluation.report import examples
from vlm_jax.evaluation.runner import Question


def question(number, answer="yes"):
    messages = [{"role": "user", "content": [{"type": "text", "text": f"Is it {number}?"}]}]
    return Question(f"q{number}", messages, [answer], {"split": "even" if number % 2 == 0 else "odd"})


QUESTIONS = [question(number, "yes" if number < 6 else "no") for number in range(10)]


def says_yes(conversations):
    return ["Yes." for _ in conversations]


def predicted(questions, answer, path, **options):
    return runner.in_order(runner.predict(questions, runner.texts(answer), path, **options), questions)


def test_every_question_is_asked_and_scored_in_order(tmp_path):
    path = tmp_path / "predictions.jsonl"
    predictions = predicted(QUESTIONS, says_yes, path, metric="normalised", chunk=4)
    assert [one.id for one in predictions] == [one.id for one in QUESTIONS]
    assert [one.score for one in predictions] == [1.0] * 6 + [0.0] * 4
    assert list(runner.read_predictions(path).values()) == predictions


def test_a_stopped_evaluation_asks_only_what_is_left(tmp_path):
    path = tmp_path / "predictions.jsonl"
    whole = predicted(QUESTIONS, says_yes, path, metric="exact", chunk=4)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20])  # a kill in the middle of a line
    asked = []

    def answer(conversations):
        asked.extend(conversations)
        return says_yes(conversations)

    assert predicted(QUESTIONS, answer, path, metric="exact", chunk=4) == whole
    assert len(asked) == 5
    assert path.read_text() == "".join(lines)


def test_a_question_that_cannot_be_asked_counts_as_wrong_and_says_why(tmp_path):
    def answer(conversations):
        if any("Is it 3?" in str(one) for one in conversations):
            raise InputError("three.png: not an image")
        return says_yes(conversations)

    predictions = predicted(QUESTIONS, answer, tmp_path / "p.jsonl", metric="normalised", chunk=4)
    assert [one.score for one in predictions] == [1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert [one.error for one in predictions if one.error] == ["three.png: not an image"]
    assert report.summarise(predictions)["errors"] == [{"id": "q3", "error": "three.png: not an image"}]


def test_answers_to_other_questions_are_not_mixed_in(tmp_path):
    path = tmp_path / "p.jsonl"
    predicted(QUESTIONS[:3], says_yes, path, metric="exact")
    with pytest.raises(InputError, match="other questions"):
        predicted(QUESTIONS[3:], says_yes, path, metric="exact")


def test_another_metric_scores_what_was_said_and_asks_nothing(tmp_path):
    path = tmp_path / "p.jsonl"

    def asked_again(conversations):
        raise AssertionError("asked again")

    for metric in ("exact", "contains", "normalised", "exact"):
        answer = says_yes if not path.exists() else asked_again
        again = predicted(QUESTIONS[:3], answer, path, metric=metric)
        assert again == predicted(QUESTIONS[:3], says_yes, tmp_path / f"{metric}.jsonl", metric=metric)
        assert list(runner.read_predictions(path).values()) == again


def test_a_cut_within_a_character_and_odd_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "p.jsonl"

    def answer(conversations):
        return ["one\u2028two\x85 \ud800" for _ in conversations]

    whole = predicted(QUESTIONS[:4], answer, path, metric="exact")
    bytes_of = path.read_bytes()
    path.write_bytes(bytes_of + '{"id": "q4", "question": "\u0e01'.encode()[:-1])
    assert list(runner.read_predictions(path).values()) == whole
    assert path.read_bytes() != bytes_of  # reading alone changes nothing
    assert predicted(QUESTIONS[:4], says_yes, path, metric="exact") == whole
    assert path.read_bytes() == bytes_of


def test_corrected_answers_are_scored_anew_and_mended_images_asked_again(tmp_path):
    path = tmp_path / "p.jsonl"

    def broken(conversations):
        raise InputError("q.png: not an image")

    assert [one.score for one in predicted(QUESTIONS[:2], broken, path, metric="normalised")] == [0, 0]
    twice = path.read_bytes()
    predicted(QUESTIONS[:2], broken, path, metric="normalised")
    assert path.read_bytes() == twice
    mended = predicted(QUESTIONS[:2], says_yes, path, metric="normalised")
    assert [(one.score, one.error) for one in mended] == [(1, None), (1, None)]
    corrected = [question(0, "no"), QUESTIONS[1]]

    def never(conversations):
        raise AssertionError("asked again")

    assert [one.score for one in predicted(corrected, never, path, metric="normalised")] == [0, 1]
    assert runner.read_predictions(path)["q0"].answers == ["no"]


def test_the_page_shows_some_of_every_part(tmp_path):
    predictions = predicted(QUESTIONS, says_yes, tmp_path / "p.jsonl", metric="normalised")
    assert [one.id for one in examples.spread(predictions, 4)] == ["q0", "q2", "q5", "q7"]
    assert examples.spread(predictions, 20) == predictions


def test_the_summary_has_sizes_intervals_groups_and_flips(tmp_path):
    after = predicted(QUESTIONS, says_yes, tmp_path / "a.jsonl", metric="normalised")
    before = predicted(QUESTIONS, lambda c: ["no" for _ in c], tmp_path / "b.jsonl", metric="normalised")
    summary = report.summarise(after, {"before": {one.id: one for one in before}})
    assert (summary["n"], summary["mean"]) == (10, 0.6)
    assert summary["low"] < 0.6 < summary["high"]
    assert {name: part["n"] for name, part in summary["by"]["split"].items()} == {"even": 5, "odd": 5}
    earlier = summary["baselines"]["before"]
    assert (earlier["mean"], earlier["learned"], earlier["lost"]) == (0.4, 6, 4)
    assert earlier["difference"]["mean"] == pytest.approx(0.2) and 0 < earlier["difference"]["p"] <= 1
    reported = report.table(summary)
    assert "60.0%" in reported and "split even" in reported and "learned 6, lost 4" in reported


def test_general_sets_have_figures_beside_a_split_without_answers(tmp_path):
    asked = [
        dataclasses.replace(question(0), answers=[]),
        dataclasses.replace(QUESTIONS[1], groups={"set": "plain.csv"}),
    ]
    predictions = predicted(asked, says_yes, tmp_path / "p.jsonl", metric="normalised")
    earlier = {"before": {one.id: one for one in predictions}}
    summary = report.summarise(predictions, earlier, general={"q1"})
    assert summary["n"] == 1 and summary["unscored"] and "mean" not in summary
    assert summary["general"]["plain.csv"]["mean"] == 1.0
    assert "general set plain.csv (normalised/2): 100.0%" in report.table(summary)
    page = report.page(predictions, summary, lambda id: [], title="t", pictures=report.plots_of(summary))
    assert "plain.csv" in page and "<th>normalised/2" in page


def test_earlier_answers_without_a_score_are_not_compared_with(tmp_path):
    predictions = predicted(QUESTIONS, says_yes, tmp_path / "p.jsonl", metric="normalised")
    before = {one.id: dataclasses.replace(one, score=None) for one in predictions}
    summary = report.summarise(predictions, {"before": before})
    assert "baselines" not in summary and "learned" not in report.table(summary)


def test_tables_have_the_version_of_the_metric_and_general_sets_their_own(tmp_path):
    asked = [QUESTIONS[0], dataclasses.replace(QUESTIONS[1], groups={"set": "plain.csv"}, metric="normalised")]
    predictions = predicted(asked, says_yes, tmp_path / "p.jsonl", metric="anls")
    summary = report.summarise(predictions, general={"q1"})
    page = report.page(predictions, summary, lambda id: [], title="t")
    assert page.count("<th>anls/1") == 1 and page.count("<th>normalised/2") == 1
    table = report.table(summary)
    assert "anls/1" in table.splitlines()[0] and "general set plain.csv (normalised/2)" in table


def test_the_page_is_one_file_and_escapes_what_it_shows(tmp_path):
    from tests.tiny_models import PHOTOS

    wicked = Question("w", [{"role": "user", "content": "<script>alert(1)</script>"}], ["<b>"], {"split": "<i>"})
    predictions = predicted([wicked], lambda c: ["<img src=x onerror=alert(1)>"], tmp_path / "p.jsonl", metric="exact")
    page = report.page(
        predictions, report.summarise(predictions), lambda id: [PHOTOS / "coffee.jpg", "gone.png"], title="<t>"
    )
    for raw in ("<script>", "<img src=x", "<b>", "<i>", "<t>"):
        assert raw not in page
    assert "data:image/jpeg;base64," in page and "gone.png: no such image" in page
    assert "http://" not in page and "https://" not in page


def test_a_page_shows_the_beginning_of_an_endless_answer_and_no_control_characters(tmp_path):
    predictions = predicted(
        QUESTIONS[:1], lambda c: ["\x00\x1b[31m\ud800" + "x" * 10**6], tmp_path / "p", metric="exact"
    )
    page = report.page(predictions, report.summarise(predictions), lambda id: [], title="t")
    assert len(page.encode()) < 50_000 and "1,000,007 characters; predictions.jsonl has all" in page
    assert "\ufffd\ufffd[31m\ufffdxxx" in page


@pytest.mark.parametrize("changes", [{"prediction": 5}, {"answers": None}, {"answers": [5]}, {"id": 5}])
def test_a_line_whose_texts_are_none_is_named(tmp_path, changes):
    path = tmp_path / "p.jsonl"
    predicted(QUESTIONS[:2], says_yes, path, metric="exact")
    first, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps({**json.loads(second), **changes})}\n")
    with pytest.raises(InputError, match="p.jsonl, line 2: no prediction"):
        runner.read_predictions(path)


def test_a_metric_that_reads_the_question_is_given_it(tmp_path):
    asked = [
        Question(f"q{letter}", [{"role": "user", "content": "Which colour? A. red B. blue"}], [answer], {})
        for letter, answer in (("a", "red"), ("b", "blue"))
    ]
    path = tmp_path / "p.jsonl"
    predictions = predicted(asked, lambda c: ["The answer is B."] * len(c), path, metric="multiple_choice")
    assert [one.score for one in predictions] == [0.0, 1.0]

    def never(conversations):
        raise AssertionError("asked again")

    assert [one.score for one in predicted(asked, never, path, metric="final_answer:exact")] == [0.0, 0.0]
    assert predicted(asked, never, path, metric="multiple_choice") == predictions

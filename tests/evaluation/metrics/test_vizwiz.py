"""Whether a model knows that a question cannot be answered."""

import random

import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.vizwiz import answerability, is_unanswerable, says_unanswerable


def test_a_prediction_says_so_in_the_form_of_the_script():
    for said in ("unanswerable", "Unanswerable.", " the unanswerable\n"):
        assert says_unanswerable(said)
    for said in ("", "unsuitable", "it is unanswerable", "a can"):
        assert not says_unanswerable(said)


def test_people_could_not_answer_where_half_of_them_say_so():
    assert is_unanswerable(["unanswerable"] * 3 + ["unsuitable"] * 2 + ["can"] * 5)
    assert not is_unanswerable(["Unanswerable"] * 4 + ["can"] * 6)


def test_precision_recall_f1_and_average_precision_from_what_was_said():
    said = ["unanswerable", "Unanswerable.", "can", "dog", "unanswerable", "cat"]
    labels = [True, False, True, False, True, False]
    found = answerability(said, labels)
    assert (found.n, found.unanswerable) == (6, 3)
    assert (found.accuracy, found.precision, found.recall, found.f1) == pytest.approx((4 / 6, 2 / 3, 2 / 3, 2 / 3))
    # Two steps: two of three found at a precision of two thirds, the rest at that of all, one half.
    assert found.average_precision == pytest.approx(2 / 3 * 2 / 3 + 1 / 3 * 1 / 2)


def test_average_precision_follows_confidences():
    found = answerability([""] * 4, [True, False, True, False], [0.9, 0.8, 0.7, 0.1])
    assert found.average_precision == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert (found.precision, found.recall) == (pytest.approx(2 / 3), 1.0)
    rng = random.Random(0)
    for _ in range(200):
        confidences = [rng.choice((0.1, 0.3, 0.6, 0.9)) for _ in range(12)]
        labels = [rng.random() < 0.4 for _ in range(12)]
        expected, recall = 0.0, 0.0
        for threshold in sorted(set(confidences), reverse=True):
            taken = [label for label, confidence in zip(labels, confidences, strict=True) if confidence >= threshold]
            if any(labels):
                expected += (sum(taken) / sum(labels) - recall) * sum(taken) / len(taken)
                recall = sum(taken) / sum(labels)
        found = answerability([""] * 12, labels, confidences).average_precision
        assert found == (pytest.approx(expected) if any(labels) else None)


def test_nothing_to_tell_is_said_and_lengths_must_agree():
    assert answerability([], []).average_precision is None and answerability([], []).f1 == 0.0
    assert answerability(["can"], [False]).accuracy == 1.0
    with pytest.raises(InputError, match="2 predictions, 1 labels"):
        answerability(["a", "b"], [True])

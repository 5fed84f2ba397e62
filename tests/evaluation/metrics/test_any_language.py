"""Scores of answers in any language, and the interval of a mean."""

import unicodedata

import numpy as np
import pytest

import vlm_jax
from vlm_jax.evaluation.metrics import interval, normalise

DECOMPOSED = "Cafe\u0301"


@pytest.mark.parametrize(
    "metric, prediction, answers, expected",
    [
        ("exact", "Chelsea", ["Chelsea"], 1.0),
        ("exact", " Chelsea\n", "Chelsea", 1.0),
        ("exact", "chelsea", ["Chelsea"], 0.0),
        ("exact", DECOMPOSED, ["Café"], 1.0),
        ("normalised", "The  second.", ["the second"], 1.0),
        ("normalised", "«Straße»", ["STRASSE"], 1.0),
        ("normalised", "เชลซี", ["เชลซี"], 1.0),
        # another tone mark, another word
        ("normalised", "ข้าว", ["ขาว"], 0.0),
        ("normalised", "ป่า", ["ป้า"], 0.0),
        ("normalised", "rock-n-roll", ["rock n roll"], 0.0),
        ("normalised", "Grey", ["gray", "grey"], 1.0),
        ("normalised", "", [""], 1.0),
        ("contains", "It is a tabby cat.", ["Tabby"], 1.0),
        ("contains", "2013", ["1"], 0.0),
        ("contains", "concatenate", ["cat"], 0.0),
        ("contains", "แมวชื่อเชลซีครับ", ["เชลซี"], 1.0),
        ("contains", "anything", ["?"], 0.0),
        ("contains", "который час", ["кот"], 0.0),
        ("contains", "cafés", ["café"], 0.0),
        ("contains", "นี่คือ red ครับ", ["red"], 1.0),
        ("normalised", "5", ["-5"], 0.0),
        ("normalised", "5", [".5"], 0.0),
        ("normalised", "50", ["50%"], 0.0),
        ("normalised", "(50%).", ["50%"], 1.0),
        ("normalised", "- five", ["five"], 1.0),
        ("normalised", "", ["?"], 0.0),
        ("normalised", "!", ["?"], 0.0),
        ("normalised", "\u0e19\u0e4d\u0e49\u0e32", ["น้ำ"], 1.0),
        ("normalised", "\u0e19\u0e49\u0e4d\u0e32", ["น้ำ"], 1.0),
        ("normalised", "\u0e40\u0e40มว", ["แมว"], 1.0),
        ("normalised", "\ufeffred\u200b", ["red"], 1.0),
    ],
)
def test_scores(metric, prediction, answers, expected):
    assert vlm_jax.score(metric, prediction, answers) == expected


def test_thai_vowels_and_tones_survive_normalising():
    for word in ("น้ำ", "กี่", "เป็น", "ไม้เอก"):
        assert normalise(word) == unicodedata.normalize("NFC", word)


def test_an_unknown_metric_and_no_answers_are_refused():
    with pytest.raises(vlm_jax.InputError, match="metric 'bleu': known are exact"):
        vlm_jax.score("bleu", "a", ["a"])
    with pytest.raises(vlm_jax.InputError, match="no accepted answer"):
        vlm_jax.score("exact", "a", [])


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        low, high = interval((rng.random(80) < 0.7).astype(float).tolist(), resamples=500, seed=trial)
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_the_interval_of_equal_scores_is_the_rule_of_three():
    low, high = interval([1.0] * 100)
    assert high == 1.0 and low == pytest.approx(0.97, abs=0.001)
    assert interval([]) == (0.0, 1.0)


def test_the_interval_is_the_same_every_time_and_narrows_with_more_items():
    scores = [1.0, 0.0, 1.0, 1.0] * 25
    assert interval(scores) == interval(scores)
    wide, narrow = interval(scores), interval(scores * 16)
    assert narrow[1] - narrow[0] < (wide[1] - wide[0]) / 3

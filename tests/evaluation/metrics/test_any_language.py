"""Scores of answers in any language: what is the same however it is written, and what is another word."""

import unicodedata

import pytest

import vlm_jax
from vlm_jax.evaluation.metrics import METRICS
from vlm_jax.evaluation.metrics.any_language import normalise

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
        ("normalised", "\u0e19\u0e33\u0e49", ["น้ำ"], 1.0),  # the tone behind the vowel
        ("normalised", "\u0e17\u0e48\u0e35", ["ที่"], 1.0),  # and before one that stands above
        ("normalised", "\u0e17\u0e35\u0e48\u0e48", ["ที่"], 1.0),
        ("normalised", "\ufeffred\u200b", ["red"], 1.0),
        # a mark behind the answer makes its last letter another one
        ("contains", "ปู่ของฉัน", ["ปู"], 0.0),
        ("contains", "ปู่ red", ["ปู่"], 1.0),
        ("contains", "ปู่red", ["ปู่"], 1.0),
        ("contains", "यह रामी है", ["राम"], 0.0),
        ("contains", "यह राम है", ["राम"], 1.0),
        ("contains", "हिन्दीभाषा", ["हिन्दी"], 0.0),
        ("contains", "cafe\u0331", ["cafe"], 0.0),
    ],
)
def test_scores(metric, prediction, answers, expected):
    assert vlm_jax.score(metric, prediction, answers) == expected


def test_thai_vowels_and_tones_survive_normalising():
    for word in ("น้ำ", "กี่", "เป็น", "ไม้เอก"):
        assert normalise(word) == unicodedata.normalize("NFC", word)


def test_what_pythainlp_takes_for_the_same_thai_is_the_same():
    thai = pytest.importorskip("pythainlp.util").normalize
    for vowel in "\u0e30\u0e31\u0e32\u0e33\u0e34\u0e35\u0e37\u0e38\u0e39\u0e45\u0e47\u0e4d":
        for mark in "\u0e48\u0e49\u0e4a\u0e4b\u0e4c":
            for typed in (vowel + mark, mark + vowel, vowel + vowel + mark, vowel + mark + mark, mark + vowel + "า"):
                text = f"ก{typed}น"
                assert normalise(thai(text)) == normalise(text), ascii(text)


def test_a_long_run_of_points_is_normalised_at_once():
    assert normalise("." * 300_000 + "-" * 300_000) == ""


ANY_LANGUAGE = ("exact", "normalised", "contains")


@pytest.mark.parametrize("metric", ANY_LANGUAGE)
@pytest.mark.parametrize(
    "said, answer",
    [
        ("ข้าว", "ขาว"),
        ("ป่า", "ป้า"),
        ("ป่า", "ปา"),
        ("เสือ", "เสีอ"),
        ("น้ำ", "นำ"),
        ("กี่", "กิ่"),
        ("ไก่", "ใก่"),
        ("เป็น", "เปน"),
        ("หมี", "หมู"),
    ],
)
def test_a_thai_word_with_another_vowel_or_tone_is_wrong(metric, said, answer):
    assert vlm_jax.score(metric, said, answer) == 0.0 == vlm_jax.score(metric, answer, said)
    assert vlm_jax.score(metric, said, said) == 1.0


@pytest.mark.parametrize("metric", [*ANY_LANGUAGE, "multiple_choice"])
@pytest.mark.parametrize("text", ["café", "Ångström", "ก้อน", "น้ำ", "が", "Việt", "각"])
def test_composed_and_decomposed_forms_are_the_same(metric, text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    more = {"options": [composed, "x"]} if metric == "multiple_choice" else {}
    assert vlm_jax.score(metric, decomposed, composed, **more) == 1.0
    assert vlm_jax.score(metric, composed, composed, **more) == 1.0


def test_thai_options_with_other_vowels_are_told_apart():
    question = "ข้อใดถูก ก. ข้าว ข. ขาว ค. ข่าว"
    for letter, text in (("ก", "ข้าว"), ("ข", "ขาว"), ("ค", "ข่าว")):
        assert [vlm_jax.score("multiple_choice", text, one, question) for one in "กขค"] == [
            float(one == letter) for one in "กขค"
        ]


@pytest.mark.parametrize("metric", [name for name, metric in METRICS.items() if metric.of_texts])
def test_answers_that_are_empty_or_numbers_are_scored_by_every_metric(metric):
    nothing = {"": 1.0, "47": 0.0}
    if metric in ("contains", "mpa_substring"):  # nothing is in nothing, by the one; in everything, by the other
        nothing = {"": 0.0, "47": 0.0} if metric == "contains" else {"": 1.0, "47": 1.0}
    assert {said: vlm_jax.score(metric, said, [""]) for said in nothing} == nothing
    assert vlm_jax.score(metric, "47", ["47"]) == 1.0
    assert vlm_jax.score(metric, "", ["47"]) == 0.0

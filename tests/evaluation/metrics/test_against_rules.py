"""Every metric of texts, on 10,000 random pairs, against the rules as `transcribed` has them."""

import functools
import json
import random
import unicodedata

import pytest

from tests.evaluation.metrics import transcribed
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import METRICS, any_language, score, squad, vizwiz, vqa

PAIRS = 10_000
ENGLISH = """a an the none zero one Two ten dont couldnt've couldn'tve hadn'tve couldn’tve wheres somebody'd Im oclock
The answer is final true False door two-door U.S.A. John's john’s it's red Red RED dark red, blue & green and yellow
cat,dog <extra_id_0> unanswerable"""
NUMBERS = """3. 3.0 3 1,000 1,000-2,000 2,0 50% 50%% 0.0 0 -.5 .5 -.5.6 1e3 5e 9-10 10-9 +7 12. 2013 nan inf 1_000 ½ ²3
๑๒ ３"""
OTHERS = """Straße STRASSE İstanbul ŉ ﬁn café cafe\u0301 น้ำ นํ้า เเมว แมว ข้าว ขาว ป่า ป้า ภาพ สุขภาพ 東京 とうきょう
का\u200dर"""
MARKS = """... .. . ? ! ?! - -- _ __ ' '' \" `` ; / ( ) [x] {y} a/b x=y @ # $5 ~ * ** ' t ’ “red” «rot» \u200b
\ufeff &&"""
WORDS = f"{ENGLISH} {NUMBERS} {OTHERS} {MARKS}".split() + ["\n", "\t", " ", "  ", "\u00a0", "\u2003", ""]
CHARACTERS = "aAbnt019.,-'’?!;/%&()_ \n\té\u0301\u0e01\u0e32\u0e49\u0e4d\u0e33"


def random_text(rng):
    if rng.random() < 0.03:
        return "".join(chr(rng.choice((rng.randrange(32, 0x250), rng.randrange(0xE00, 0xE80)))) for _ in range(6))
    if rng.random() < 0.2:
        return "".join(rng.choice(CHARACTERS) for _ in range(rng.randrange(12)))
    return rng.choice((" ", " ", "", ", ")).join(rng.choice(WORDS) for _ in range(rng.randrange(4)))


def changed(rng, text):
    """The text in another spelling, mostly one that some rule takes for the same."""
    return rng.choice(
        (
            lambda: text,
            lambda: text.upper(),
            lambda: text.lower() + rng.choice((".", " .", "!", "", "'s", "%")),
            lambda: unicodedata.normalize(rng.choice(("NFC", "NFD")), text),
            lambda: rng.choice(("the ", "The answer is ", "<extra_id_0> ", " ", "“")) + text,
            lambda: text.replace("-", " ").replace(",", ""),
            lambda: text.replace("'", "").replace("’", ""),
            lambda: f"{random_text(rng)} {text} {random_text(rng)}",
            lambda: text[:-1],
            lambda: "&&".join(text.split(" ")),
            lambda: rng.choice((" and ", " & ", ", ")).join(text.split("&&")),
            lambda: text.replace("'s", rng.choice((" 's", "s", ""))),
            lambda: "".join(rng.choice(("", " ", c)) if c in ";/-,.?" else c for c in text),
        )
    )()


@functools.cache
def random_pairs(seed=0):
    """[(prediction, one to ten answers)], alike in about half of them."""
    rng, pairs = random.Random(seed), []
    for _ in range(PAIRS):
        prediction = random_text(rng)
        answer = changed(rng, prediction) if rng.random() < 0.6 else random_text(rng)
        few = [answer, changed(rng, answer)][: rng.randrange(1, 3)]
        answers = [rng.choice(few) for _ in range(rng.choice((1, 2, 3, 10)))]
        pairs.append((prediction, answers))
    return pairs


RULES = {
    "exact": transcribed.exact,
    "normalised": transcribed.normalised,
    "contains": transcribed.contains,
    "vqa_official": lambda said, answers: transcribed.vqa(said, answers, "official"),
    "vqa_evalai": lambda said, answers: transcribed.vqa(said, answers, "evalai"),
    "vqa_vlmevalkit": lambda said, answers: transcribed.vqa(said, answers, "vlmevalkit"),
    "vizwiz": lambda said, answers: transcribed.vqa(said, answers, "vizwiz"),
    "anls": lambda said, answers: transcribed.anls(said, answers, "m4c"),
    "anls_lmms": lambda said, answers: transcribed.anls(said, answers, "lmms"),
    "relaxed_accuracy": transcribed.relaxed,
    "infoseek": transcribed.infoseek,
    "squad_em": lambda said, answers: transcribed.squad(said, answers, "em"),
    "squad_f1": lambda said, answers: transcribed.squad(said, answers, "f1"),
    "encyclopedic_vqa": transcribed.encyclopedic,
    "mpa_substring": transcribed.mpa,
}


def test_every_metric_of_texts_has_its_rules_written_down():
    assert set(RULES) == set(METRICS) - {"bem", "judge", "multiple_choice"}


@pytest.mark.parametrize("metric", RULES)
def test_it_is_the_rules_to_the_last_bit(metric):
    seen = set()
    for prediction, answers in random_pairs():
        if len(answers) < METRICS[metric].people:
            answers = answers * 2
        expected = RULES[metric](prediction, answers)
        if expected is None:  # which the official script refuses
            with pytest.raises(InputError, match="normalising leaves nothing"):
                score(metric, prediction, answers)
        else:
            assert score(metric, prediction, answers) == expected, (prediction, answers)
        seen.add(expected)
    assert {0.0, 1.0} <= seen  # right and wrong ones are among them


NORMALISED = {
    "official": vqa.normalise_official,
    "evalai": vqa.normalise_evalai,
    "vlmevalkit": vqa.normalise_vlmevalkit,
    "vizwiz": vizwiz.normalise,
}


def test_what_texts_are_normalised_to_is_the_rules():
    texts = {text for prediction, answers in random_pairs() for text in (prediction, *answers)}
    assert len(texts) > PAIRS
    for text in texts:
        for form, normalise in NORMALISED.items():
            assert normalise(text) == transcribed.vqa_text(text, form), (text, form)
        assert squad.normalise(text) == transcribed.squad_text(text), text
        assert any_language.normalise(text) == transcribed.language_text(text), text


def test_numbers_in_ranges_are_infoseeks_rules():
    rng = random.Random(0)
    forms = ("{}", "about {}", "{} to {}", "{}-{}", "between {} and {} metres", "{:.3e}", "{:,.0f}", "-{}", ".{}", "x")
    seen = [0, 0]
    for _ in range(PAIRS):
        low = round(rng.uniform(-50, 3000), rng.randrange(3))
        high = round(low + abs(rng.choice((0, 1, 10, 500)) * rng.random()), 2)
        said = [rng.choice((low, high, round(rng.uniform(low - 20, high + 20), 1))) for _ in range(2)]
        said = sorted(said) if rng.random() < 0.7 else said
        prediction = rng.choice(forms).format(*said) if rng.random() < 0.9 else random_text(rng)
        expected = transcribed.infoseek(prediction, [(low, high)])
        answer = {"wikidata": low, "range": [low, high]}
        assert score("infoseek", prediction, answer) == expected, (prediction, low, high)
        assert score("infoseek", prediction, [json.dumps(answer)]) == expected
        seen[int(expected)] += 1
    assert min(seen) > 1000

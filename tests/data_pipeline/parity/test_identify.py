"""Which pairs are the parity gap, by which rule; what is trained on, beside what as a control."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_pipeline.parity import identify, matchers, mpa_exchange, training_sets
from data_pipeline.parity.matchers import MATCHERS
from data_pipeline.parity.pairs import OUTCOMES, Compared, Pair, read_compared, read_pairs, write_compared, write_pairs
from data_pipeline.prompting import Prompt
from data_pipeline.teachers.request import Failure, Reply
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError

MPA = Path(__file__).parents[2] / "data" / "mpa"


def pair(number, answer="cat", **more):
    return Pair(f"{number:03}", f"image {number}", f"/{number}.jpg", "d", f"What is {number}?", answer, **more)


@pytest.mark.parametrize(
    "said, answer, right",
    [
        ("cat", "cat", {"exact", "normalised", "contains", "vqa", "anls", "relaxed", "mpa_substring"}),
        ("The Cat.", "cat", {"contains", "vqa", "mpa_substring"}),
        ("2013", "1", {"mpa_substring"}),
        ("98", "100", {"relaxed"}),
        ("Starbuks", "Starbucks", {"anls"}),
        ("two", "2", {"vqa"}),
        ("dog", "cat", set()),
        ("", "cat", set()),
        ("ข้าวผัด", "ขาวผัด", {"anls", "mpa_substring"}),
    ],
)
def test_rules_differ_in_what_is_right(said, answer, right):
    found = {
        name for name in MATCHERS if name != matchers.JUDGE and identify.by_rule(name)([(pair(1, answer), said)])[0]
    }
    assert found == right


def test_kept_is_what_the_student_lacks_and_the_teacher_repeats():
    pairs = [pair(number) for number in range(4)]
    found = identify.compared(pairs, ["dog", "cat", "dog", "cat"], [("cat",), ("cat",), ("cow",), ("cow",)], right())
    assert [one.outcome for one in found] == list(OUTCOMES)
    assert [one.kept for one in found] == [True, False, False, False]


def right():
    return identify.by_rule("normalised")


@pytest.mark.parametrize(
    "agree, kept", [(1.0, [True, False, False]), (0.6, [True, True, False]), (0.0, [True, True, True])]
)
def test_of_several_answers_of_the_teacher_a_share_must_agree(agree, kept):
    samples = [("cat",) * 3, ("cat", "cat", "dog"), ("cat", "dog", "dog")]
    found = identify.compared([pair(n) for n in range(3)], ["dog"] * 3, samples, right(), agree=agree)
    assert [one.kept for one in found] == kept
    none = identify.compared([pair(1)], ["dog"], [("dog",) * 3], right(), agree=agree)
    assert not none[0].kept, "where no sample is right the teacher is not"


def test_a_judge_that_says_partly_is_no_yes_and_what_it_would_not_judge_is_left_out():
    verdicts = {
        "a cat?": Reply(text='{"verdict": "partly"}'),
        "cat": Reply(text='{"verdict": "yes"}'),
        "cow": Reply(text='{"verdict": "no"}'),
        "dog": Failure("not what was asked for", "no verdict"),
    }

    class Judging:
        def ask(self, who, requests, check):
            found = [next(name for name in verdicts if json.dumps(name)[1:-1] in one.prompt) for one in requests]
            return [verdicts[name] for name in found]

    pairs = [pair(number, "feline") for number in range(4)]
    said = ["a cat?", "dog", "", "cow"]
    found = identify.compared(pairs, said, [("cat",), ("cat",), ("cat",), ("dog",)], identify.by_judge(Judging(), None))
    assert [(one.pair.id, one.outcome) for one in found] == [("000", "kept"), ("002", "kept")]


def test_pairs_of_a_file_have_the_images_as_they_are_now(tmp_path):
    (tmp_path / "now" / "deep").mkdir(parents=True)
    (tmp_path / "now" / "deep" / "1.jpg").write_bytes(b"edited")
    own = dataclasses.replace(pair(1), file="/then/deep/1.jpg")
    write_pairs(tmp_path / "pairs.jsonl", [own])
    assert mpa_exchange.pairs_of_file(tmp_path / "pairs.jsonl", "") == [own]
    (found,) = mpa_exchange.pairs_of_file(tmp_path / "pairs.jsonl", str(tmp_path / "now"))
    assert found.file == str(tmp_path / "now" / "deep" / "1.jpg") and found.digest != own.digest
    with pytest.raises(InputError, match="config.images.image_root: .*gone is not a folder"):
        mpa_exchange.pairs_of_file(tmp_path / "pairs.jsonl", str(tmp_path / "gone"))


def test_pairs_that_one_could_not_be_asked_are_left_out_and_told():
    pairs, student, teacher, notes = identify.answered(
        [pair(1), pair(2), pair(3)],
        [("a",), Failure("cannot be asked", "too long"), ("c",)],
        [("a",), ("b",), Failure("blocked answer", "SAFETY")],
    )
    assert ([one.id for one in pairs], student, teacher) == (["001"], ["a"], [("a",)])
    assert notes == [
        "002: the student did not answer: cannot be asked: too long",
        "003: the teacher did not answer: blocked answer: SAFETY",
    ]


def test_an_image_is_shown_as_what_it_is_whatever_its_file_is_called(tmp_path):
    (tmp_path / "photo.jpg").write_bytes((PHOTOS / "moon.png").read_bytes())
    shown = identify._image(Pair("1", "i", str(tmp_path / "photo.jpg"), "d", "What?", "moon"))
    assert shown.media_type == "image/png"


def test_a_question_is_asked_as_in_training_and_keeps_its_mark():
    prompt = Prompt("About the image: {question}", "\\nOne word.")
    assert identify.asked(pair(1), prompt) == "About the image: What is 1?\nOne word."


@pytest.mark.parametrize("name", ["chartVQA", "okVQA", "textVQA"])
def test_on_mpas_own_files_its_rule_keeps_what_it_kept(name):
    files = [MPA / f"PI_Qwen2vl7b_Qwen2-VL-{size}-Instruct_{name}.json" for size in ("2B", "7B")]
    pairs, student, teacher = mpa_exchange.pairs_of_answers(*map(str, files), "")
    found = identify.compared(pairs, student, teacher, identify.by_rule("mpa_substring"))
    (training,) = MPA.glob(f"PI_*_train_*_{name}.json")
    assert [one.pair.id for one in found if one.kept] == [str(one["id"]) for one in json.loads(training.read_text())]
    table = identify.agreement(found, 1.0)
    assert table.kept_by["mpa_substring"] == table.outcomes["kept"] == 1
    assert sum(table.outcomes.values()) == len(pairs) == 4


def test_files_hold_what_was_written(tmp_path):
    pairs = [pair(1, "ข้าวซอย", type="Names."), pair(2, round=2)]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    compared = [Compared(pairs[0], "x\u2028\x85", ("y", "z"), False, True)]
    write_compared(tmp_path / "compared.jsonl", compared)
    assert read_compared(tmp_path / "compared.jsonl") == compared
    (tmp_path / "bad.jsonl").write_text('{"id": "1"}\n')
    with pytest.raises(InputError, match="bad.jsonl, line 1: is no pair"):
        read_pairs(tmp_path / "bad.jsonl")
    whole = {**dataclasses.asdict(pairs[0]), "answer": None}
    (tmp_path / "bad.jsonl").write_text(f"\n{json.dumps(whole)}\n")
    with pytest.raises(InputError, match="line 2: answer is None; wanted a text"):
        read_pairs(tmp_path / "bad.jsonl")


def outcomes(**counts):
    found = []
    for outcome, count in counts.items():
        student, teacher = {"kept": (False, True), "both": (True, True), "neither": (False, False)}[outcome]
        found += [Compared(pair(len(found)), "", ("",), student, teacher) for _ in range(count)]
        found = [
            Compared(pair(n), one.student, one.teacher, one.student_right, one.teacher_right)
            for n, one in enumerate(found)
        ]
    return found


def test_controls_are_as_large_and_a_share_is_replayed():
    found = outcomes(kept=18, both=30, neither=12)
    sets = training_sets.training_sets(found, ("kept", "random", "all"), replay=0.1, seed=0)
    kept = {one.pair.id for one in found if one.kept}
    ids = {arm: [one.id for one in own.pairs] for arm, own in sets.items()}
    assert len(ids["kept"]) == len(ids["random"]) == 20 and len(ids["all"]) == 60
    assert kept < set(ids["kept"]) and sets["kept"].replayed == 2
    replayed = set(ids["kept"]) - kept
    assert replayed <= {one.pair.id for one in found if one.outcome == "both right"}
    assert all(own == sorted(own) for own in ids.values())
    assert 0 < len(kept & set(ids["random"])) < 18, "of all pairs, not of those that are kept"
    again = training_sets.training_sets(list(reversed(found)), ("kept", "random"), replay=0.1, seed=0)
    assert again["random"] == sets["random"] and again["kept"] == sets["kept"]
    other = training_sets.training_sets(found, ("kept", "random"), replay=0.1, seed=1)
    assert other["random"] != sets["random"]


def test_where_nothing_is_kept_nothing_is_trained_and_it_is_said_why():
    with pytest.raises(InputError) as caught:
        training_sets.training_sets(outcomes(both=3, neither=2), ("kept",), replay=0.1, seed=0)
    first, second = caught.value.lines
    assert first.startswith("nothing is kept of 5 pairs: the student has 3 right and the teacher 3")
    assert second.startswith("all answers are kept; write more pairs")

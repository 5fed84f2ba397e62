"""What the official scripts make of chosen texts, and the details of theirs that look like mistakes."""

import itertools
from pathlib import Path

import pytest

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import infoseek, score, vizwiz, vqa

ROOT = Path(__file__).resolve().parents[3]
FORMS = {
    "evalai": vqa.normalise_evalai,
    "vlmevalkit": vqa.normalise_vlmevalkit,
    "official": vqa.normalise_official,
    "vizwiz": vizwiz.normalise,
}


@pytest.mark.parametrize(
    "text, evalai, vlmevalkit, official",
    [
        ("3.", "3", "3.", "3"),
        ("John's", "john 's", "john's", "john's"),
        ("1,000-2,000", "1000 2000", "10002000", "10002000"),
        ("the two-door", "2 door", "2 door", "2 door"),
        ("U.S.A.", "usa", "usa", "usa"),
        # A comma between digits deletes every mark, near a space or not.
        ("1,5/2;x", "15 2 x", "152x", "152x"),
        ("a cat/dog", "cat dog", "cat dog", "cat dog"),
        # A mark beside a space anywhere is deleted everywhere.
        ("cat- dog-fish", "cat dogfish", "cat dogfish", "cat dogfish"),
        ("0.5", "0.5", "0.5", "0.5"),
        (".5", ".5", ".5", ".5"),
        ("None", "0", "0", "0"),
        ("ten dont Im", "10 don't im", "10 don't im", "10 don't im"),
        ("couldnt've", "couldn't've", "couldn't've", "couldn't've"),
        ("somebody'd", "somebodyd", "somebodyd", "somebodyd"),
        ("5:41 $3 50%", "5:41 $3 50%", "5:41 $3 50%", "5:41 $3 50%"),
        ("what?!", "what", "what", "what"),
        ("two\nwords\there", "2 words here", "2 words here", "2 words here"),
        ("", "", "", ""),
        ("the a an", "", "", ""),
        ("น้ำ.", "น้ำ", "น้ำ", "น้ำ"),
    ],
)
def test_normalised_for_vqa_accuracy(text, evalai, vlmevalkit, official):
    assert FORMS["evalai"](text) == evalai
    assert FORMS["vlmevalkit"](text) == vlmevalkit
    assert FORMS["official"](text) == official


def test_the_regex_flag_is_taken_as_a_count_so_that_only_32_periods_go():
    for form in FORMS.values():
        assert form("." * 32) == ""
        assert form("x" + ".y" * 40) == "x" + "y" * 32 + ".y" * 8


def test_the_look_behind_that_is_none_strips_every_period_before_no_digit():
    assert [form("1.a 2. b.3") for form in FORMS.values()] == ["1a 2 b.3", "1.a 2. b.3", "1a 2 b.3", "1a 2 b.3"]


def test_vqa_accuracy_leaves_one_out_by_index():
    for metric in ("vqa_official", "vqa_evalai", "vqa_vlmevalkit", "vizwiz"):
        # Of ten answers with k the same: (k · min(1, (k − 1) / 3) + (10 − k) · min(1, k / 3)) / 10.
        scores = [score(metric, "cat", ["cat"] * k + [str(number) for number in range(20, 30 - k)]) for k in range(11)]
        assert scores == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1, 1, 1, 1, 1, 1])
        with pytest.raises(InputError, match="leaves out each accepted answer in turn, and there is one alone"):
            score(metric, "cat", "cat")


def test_the_official_script_normalises_nothing_where_all_answers_are_the_same():
    alike, unlike = ["3."] * 10, ["3."] * 9 + ["4"]
    assert score("vqa_official", "3", alike) == 0.0 and score("vqa_official", "3.", alike) == 1.0
    assert score("vqa_official", " 3.\n", [" 3.", *alike[:9]]) == 1.0  # trimmed all the same
    assert score("vqa_official", "3", unlike) == 1.0
    assert score("vqa_evalai", "3", alike) == 1.0 == score("vqa_evalai", "3.", ["3"] * 10)


def test_vizwiz_leaves_the_answers_as_they_are():
    assert score("vizwiz", "Two dogs.", ["2 dogs"] * 10) == 1.0
    assert score("vizwiz", "Two dogs.", ["Two dogs."] * 10) == 0.0
    assert score("vizwiz", "dont know", ["don't know"] * 10) == 0.0  # becomes don’t, with a typographic apostrophe
    assert score("vizwiz", "cant tell", ["can't tell"] * 10) == 1.0
    assert vizwiz.normalise("weve didnt couldn'tve couldnt’ve somebody’d") == (
        "we've didn’t couldn’t’ve couldn’t’ve somebodyd"
    )


@pytest.mark.parametrize(
    "metric, said, answers, expected",
    [
        ("anls", "abcd", ["abxy"], 0.5),
        ("anls", "abc", ["axy"], 0.0),
        ("anls", " Kitten ", ["sitting"], 1 - 3 / 7),
        ("anls", "kitten", ["nothing like it", "Kitten"], 1.0),
        ("anls", "", ["", "x"], 1.0),
        ("anls", "a  b", ["a b"], 1 - 1 / 4),
        ("anls_lmms", "a  b", ["a b"], 1.0),
        ("anls_lmms", "abcd   ", ["abxy"], 1 - 2 / 7),
        ("anls_lmms", "ab     ", ["a"], 1 - 1 / 7),
        ("anls", "ab     ", ["a"], 0.5),
        ("relaxed_accuracy", "47", ["47."], 1.0),
        ("relaxed_accuracy", "47.", ["47"], 1.0),
        ("relaxed_accuracy", "49.3", ["47"], 1.0),
        ("relaxed_accuracy", "49.4", ["47"], 0.0),
        ("relaxed_accuracy", "2020", ["2011"], 1.0),  # a year is a number, too
        ("relaxed_accuracy", "0.0", ["0"], 0.0),
        ("relaxed_accuracy", "0", ["0"], 1.0),
        ("relaxed_accuracy", "50", ["50%"], 0.0),
        ("relaxed_accuracy", "0.5", ["50%"], 1.0),
        ("relaxed_accuracy", "1,000", ["1000"], 0.0),
        ("relaxed_accuracy", "YES", ["yes"], 1.0),
        ("relaxed_accuracy", "-5", ["5"], 0.0),
        ("relaxed_accuracy", "nan", ["NaN"], 0.0),
        ("squad_em", "The Cat!", ["cat"], 1.0),
        ("squad_em", "cat", ["the", "dog"], 0.0),
        ("squad_em", "", ["the", "dog"], 0.0),
        ("squad_em", "", ["the"], 1.0),
        ("squad_f1", "the big cat", ["a big dog"], 0.5),
        ("squad_f1", "big big cat", ["big cat"], 0.8),
        ("squad_f1", "", ["cat"], 0.0),
        ("infoseek", "The Eiffel Tower.", ["eiffel tower", "Tour Eiffel"], 1.0),
        ("infoseek", "1889", ["1889"], 1.0),
        ("encyclopedic_vqa", "The answer is two", ["2"], 1.0),
        ("encyclopedic_vqa", "true", ["Yes"], 1.0),
        ("encyclopedic_vqa", "dont", ["don't"], 1.0),
        ("encyclopedic_vqa", "cat", ["dog", "cat"], 1.0),
        ("encyclopedic_vqa", "cat and dog", ["dog&&cat&&cow"], 1.0),
        ("encyclopedic_vqa", "cat, a fish & dog, bird", ["dog&&cat&&cow"], 0.0),
        ("encyclopedic_vqa", "cat & dog", ["dog&&cat"], 1.0),
        ("encyclopedic_vqa", "cat, dog", ["cat"], 0.0),
        ("encyclopedic_vqa", "cat, dog", ["cat&&"], 1.0),  # a list of one
        ("encyclopedic_vqa", "cat, dog, cow", ["cat&&"], 0.0),
        ("mpa_substring", "2013", ["1"], 1.0),
        ("mpa_substring", "shopping", ["shop"], 1.0),
        ("mpa_substring", "anything", ["?"], 1.0),
        ("mpa_substring", "ปา", ["ป้า"], 1.0),
        ("mpa_substring", "dog", ["hot dog"], 0.0),
    ],
)
def test_scores(metric, said, answers, expected):
    assert score(metric, said, answers) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    "said, low, high, expected",
    [
        ("about 1.0 km", 0.9, 1.1, 1),
        ("1.2", 0.9, 1.1, 0),
        ("1,050 metres", 1000, 1100, 1),
        ("9-10", 9, 11, 1),
        ("8 to 11", 9, 11, 1),  # 2 of 3
        ("5 to 11", 9, 11, 0),  # 2 of 6
        ("9 to 11, or 100", 9, 11, 1),  # the first two
        ("11 to 9", 9, 11, 1),  # the first alone, where they do not ascend
        ("12 to 9", 9, 11, 0),
        ("10 - 12", 8, 12, 1),
        ("no idea", 9, 11, 0),
        ("no idea", -1, 1, 1),  # which the script takes for 0
        (".5", 4, 6, 1),  # and this for 5
        ("-5", -6, -4, 1),
        ("1e3", 900, 1100, 1),
        ("-.5.6", 0, 0, 1),  # no number, where the script ends with an error
    ],
)
def test_numbers_of_infoseek_are_compared_by_range(said, low, high, expected):
    assert score("infoseek", said, {"wikidata": (low + high) / 2, "range": [low, high]}) == expected


def test_the_final_score_of_infoseek_is_the_harmonic_mean_as_its_script_rounds_it():
    assert infoseek.final_score(0.2, 0.1) == pytest.approx(0.1333)
    assert infoseek.final_score(0.123456, 0.123456) == pytest.approx(0.1235)
    assert infoseek.final_score(0.5, 0.0) == 0.0
    assert infoseek.final_score(1.0, 1.0) == 1.0


def test_a_range_that_is_none_and_an_answer_of_which_nothing_is_left_are_refused():
    for answer in ({"range": [1]}, {"range": "x"}, {"wikidata": 3}, '{"range": [1, null]}'):
        with pytest.raises(InputError, match="has no range of two numbers"):
            score("infoseek", "1", answer)
    assert score("infoseek", "{x}", ["{x}"]) == 1.0  # a text that begins like one
    for answer in ("", "the", "?&&"):
        with pytest.raises(InputError, match="normalising leaves nothing"):
            score("encyclopedic_vqa", "cat", ["cat", answer])


@pytest.mark.parametrize(
    "metric, said, answers", [("squad_f1", "b", ["d b", "b c", "b"]), ("anls", "abc", ["abx", "abcd", "abc"])]
)
def test_the_best_counts_whatever_the_order_of_the_answers(metric, said, answers):
    assert {score(metric, said, order) for order in itertools.permutations(answers)} == {1.0}
    assert 0 < score(metric, said, answers[:2]) < 1


def test_the_table_of_the_documentation_is_what_the_metrics_make_of_its_texts():
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text[text.index("| input | evalai | vlmevalkit | official |") :].split("\n\n")[0].splitlines()[2:]
    assert len(table) >= 5
    for row in table:
        given, *expected = [cell.strip().strip("`") for cell in row.strip("|").split(" | ")]
        assert [FORMS[form](given) for form in ("evalai", "vlmevalkit", "official")] == expected, row

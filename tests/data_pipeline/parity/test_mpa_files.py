"""MPA's own files: read and written to the byte, joined by id, and refused by name where they are of another kind."""

import json
import re
from pathlib import Path

import PIL.Image
import pytest

from data_pipeline import sources
from data_pipeline.parity.mpa_files import (
    Annotated,
    Answered,
    TrainingEntry,
    paired,
    read_annotated,
    read_answers,
    read_training,
    write_annotated,
    write_answers,
    write_training,
)
from tests.data_pipeline import official_files
from vlm_jax import score
from vlm_jax.errors import InputError

MPA = Path(__file__).parents[2] / "data" / "mpa"
DATA_SETS = ("textVQA", "chartVQA", "okVQA")
STUDENT, TEACHER = "Qwen2-VL-2B-Instruct", "Qwen2-VL-7B-Instruct"
PA_ENTRY = {
    "question_id": 7,
    "image_path": "/w/data/images/a.jpg",
    "ground_truth_question": "what?",
    "ground_truth_answer": "x",
    "predicted_question": "Which",
    "predicted_answer": "y",
}
PI_ENTRY = {"question_id": 7, "image_path": "/w/a.jpg", "PA_question": "Which", "PA_answer": "y", "predictions": "z"}


@pytest.fixture
def write(tmp_path):
    def write(value, name="file.json"):
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


def errors_of(call, *args, **settings):
    with pytest.raises(InputError) as caught:
        call(*args, **settings)
    assert all("\n" not in line for line in caught.value.lines)
    return caught.value.lines


def answers(data_set, model):
    return MPA / f"PI_Qwen2vl7b_{model}_{data_set}.json"


def training(data_set):
    return MPA / f"PI_Qwen2vl7b_train_{TEACHER}_{STUDENT}_{data_set}.json"


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_each_real_file_read_and_written_is_the_same_to_the_byte(tmp_path, data_set):
    files = [(MPA / f"PA_Qwen2vl7b_{data_set}.json", read_annotated, write_annotated)]
    files += [(answers(data_set, model), read_answers, write_answers) for model in (STUDENT, TEACHER)]
    files += [(training(data_set), read_training, write_training)]
    for path, reading, writing in files:
        entries = reading(path)
        assert len(entries) == len(json.loads(path.read_text()))
        writing(tmp_path / "new" / path.name, entries)
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("data_set", DATA_SETS)
def test_by_mpas_own_rule_the_real_answers_give_its_real_training_file(tmp_path, data_set):
    """A pair is kept iff the student is wrong and the teacher right, by a match of substrings."""
    pairs = paired(read_answers(answers(data_set, STUDENT)), read_answers(answers(data_set, TEACHER)))
    right = [[score("mpa_substring", one.predictions, [one.PA_answer]) == 1 for one in pair] for pair in pairs]
    kept = [pair[0] for pair, outcome in zip(pairs, right, strict=True) if outcome == [False, True]]
    assert len(pairs) == 4 and len(kept) == 1
    write_training(tmp_path / "train.json", map(TrainingEntry.of, kept))
    assert (tmp_path / "train.json").read_bytes() == training(data_set).read_bytes()


def test_what_is_read_is_what_records_are_made_of():
    for path, reading, question in (
        (MPA / "PA_Qwen2vl7b_chartVQA.json", read_annotated, "predicted_question"),
        (answers("okVQA", STUDENT), read_answers, "PA_question"),
    ):
        records, errors = sources.read(path)
        assert errors == []
        for entry, record in zip(reading(path), records, strict=True):
            assert (str(entry.question_id), getattr(entry, question)) == (
                record.id,
                record.messages[0]["content"][1]["text"],
            )
    nieto = read_annotated(MPA / "PA_Qwen2vl7b_chartVQA.json")[1]
    assert nieto.predicted_question.endswith("Enrique Peña Nieto in 2011") and nieto.ground_truth_answer == "2014"


def test_texts_of_any_language_and_ids_of_both_types_survive(tmp_path):
    texts = ["ผ้าซิ่น \u0e49", 'quote " and \\ and \t', "𝔘 🐘", "a\u2028b\nc"]
    annotated = [Annotated(f"ภาพ-{n}", f"/w/{text[:1]}.jpg", text, text[::-1]) for n, text in enumerate(texts)]
    annotated.append(Annotated(-3, "/w/a.jpg", "q", "", "q?", ""))
    answered = [Answered(one.question_id, one.image_path, "q", "a", one.predicted_question) for one in annotated]
    taught = [TrainingEntry.of(one) for one in answered]
    for entries, reading, writing in (
        (annotated, read_annotated, write_annotated),
        (answered, read_answers, write_answers),
        (taught, read_training, write_training),
    ):
        writing(tmp_path / "a.json", iter(entries))
        assert reading(tmp_path / "a.json") == entries
        content = (tmp_path / "a.json").read_bytes()
        assert content.isascii() and content.endswith(b"}\n]")
        value = json.loads(content)
        assert content.decode() == json.dumps(value, indent=2 if entries is taught else 4)
    assert "ground_truth_question" not in json.loads(_written(tmp_path, annotated))[0]


def _written(folder, entries):
    write_annotated(folder / "b.json", entries)
    return (folder / "b.json").read_text()


def test_a_number_is_an_answer_by_its_text_and_is_written_back_as_it_was(tmp_path, write):
    text = json.dumps([{**PI_ENTRY, "PA_answer": "N", "predictions": 228}], indent=4).replace('"N"', "3.10")
    path = write(text)
    (entry,) = read_answers(path)
    assert (entry.PA_answer, entry.predictions) == ("3.10", "228")
    write_answers(tmp_path / "b.json", [entry])
    assert (tmp_path / "b.json").read_text() == text
    write_training(tmp_path / "c.json", [TrainingEntry.of(entry)])
    assert read_training(tmp_path / "c.json")[0].answer == "3.10"
    # By its text it is equal to a text, of the other file for example.
    assert paired([entry], read_answers(write([{**PI_ENTRY, "PA_answer": "3.10"}])))[0][0] is entry


def test_no_entries_are_written_as_an_empty_list_and_not_read(tmp_path):
    write_training(tmp_path / "a.json", [])
    assert (tmp_path / "a.json").read_text() == "[]"
    (line,) = errors_of(read_training, tmp_path / "a.json")
    assert line.startswith(f"{tmp_path / 'a.json'}: is a list without entries, where a training file")


def test_images_are_found_again_below_an_image_root(tmp_path):
    folder = tmp_path / "TextVQA" / "train_images"
    folder.mkdir(parents=True)
    path = MPA / "PA_Qwen2vl7b_textVQA.json"
    name = Path(read_annotated(path)[0].image_path).name
    PIL.Image.new("RGB", (8, 8)).save(folder / name)
    entries = read_annotated(path, tmp_path)
    assert entries[0].image_path == str(folder / name)
    assert {entry.image_path.rpartition("/")[0] for entry in entries[1:]} == {str(tmp_path)}
    assert [record.messages[0]["content"][0]["image"] for record in sources.read(path, image_root=tmp_path)[0]] == [
        entry.image_path for entry in entries
    ]
    (line,) = errors_of(read_annotated, path, tmp_path / "textvqa")
    assert line.startswith(f"{tmp_path}/textvqa: the image root of {path} is not a folder; did you mean {tmp_path}/Te")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('[{"question_id": 1,', "is not JSON ("),
        ("[" * 100_000, "is not JSON (it is nested too deeply)"),
        ('{"a": 1}', "is an object with the keys 'a', where a PA file"),
        ("{}", "is an empty object, where a PA file"),
        ("3", "is a number, where a PA file"),
        ("[]", "is a list without entries, where a PA file"),
        ('[{"a": 1}]', "is an object with the keys 'a', where a PA file"),
        ('[{"question_id": 1, "question_id": 2}]', "the key 'question_id' is there twice in one object"),
        (" ", "is empty"),
    ],
)
def test_a_file_that_is_no_list_of_entries_is_refused_in_one_line(write, text, reason):
    path = write(text)
    (line,) = errors_of(read_annotated, path)
    assert line.startswith(f"{path}: {reason}")


def test_all_errors_of_entries_are_told_together_by_file_entry_and_key(write):
    entries = [
        PA_ENTRY,
        {**PA_ENTRY, "question_id": "7"},
        {key: value for key, value in PA_ENTRY.items() if key != "predicted_answer"} | {"question_id": 8},
        {**PA_ENTRY, "question_id": 9, "predicted_answr": "y", "score": 1},
        {**PA_ENTRY, "question_id": 10, "predicted_answer": None, "predicted_question": 5},
        {**PA_ENTRY, "question_id": 1.5, "image_path": " "},
        {key: value for key, value in PA_ENTRY.items() if key != "ground_truth_answer"} | {"question_id": True},
        {**PA_ENTRY, "question_id": "", "predicted_answer": float("nan")},
        "text",
        {**PA_ENTRY, "question_id": 11, "predicted_question": "\ud800"},
    ]
    path = write(entries)
    keys = ", ".join(map(repr, PA_ENTRY))
    assert errors_of(read_annotated, path) == [
        f"{path}, entry {line}"
        for line in [
            "2 (id '7'): has the id of entry 1; give each entry its own, or keep one of them",
            "3 (id '8'): has no 'predicted_answer'; add it, or remove the entry",
            "4 (id '9'): has the unknown key 'predicted_answr'; did you mean 'predicted_answer'?",
            f"4 (id '9'): has the unknown key 'score'; the keys are {keys}",
            "5 (id '10'): 'predicted_question' is a number; it must be a text",
            "5 (id '10'): 'predicted_answer' is null; it must be a text or a number",
            "6: 'question_id' is 1.5; it must be a text or a whole number of at most 18 digits",
            "6: 'image_path' is empty; give the image's path, or remove the entry",
            "7: has no 'ground_truth_answer'; add it, or remove the entry",
            "7: 'question_id' is true or false; it must be a text or a whole number of at most 18 digits",
            "8: 'question_id' is empty; it must be a text or a whole number of at most 18 digits",
            "8: 'predicted_answer' is NaN or infinite, which JSON has no number for; it must be a text or a number",
            "9: is a text; it must be an object",
            "10 (id '11'): 'predicted_question' contains half of a surrogate pair (a broken \\u escape); rewrite that "
            "character",
        ]
    ]


def test_a_file_of_another_kind_is_named_and_so_is_what_is_wanted(tmp_path):
    evaluation = MPA / f"Eval_{STUDENT}_textVQA.json"
    official = {name: official_files.WRITERS[name](tmp_path / name).data for name in ("textvqa", "stvqa", "okvqa")}
    lines = tmp_path / "records.jsonl"
    lines.write_text("".join(json.dumps({"id": id, "messages": []}) + "\n" for id in "ab"))
    table = tmp_path / "table.csv"
    table.write_text("image,question,answer\na.png,what?,x\n")
    for reading, path, found in (
        (read_annotated, evaluation, "an evaluation file of MPA's"),
        (read_annotated, answers("okVQA", STUDENT), "a PI file (what one model answers to a teacher's questions)"),
        (read_annotated, training("okVQA"), "a training file in LLaVA's form"),
        (read_annotated, MPA / "okvqa_llava_format_first40.json", "a training file in LLaVA's form"),
        (read_annotated, MPA / "okvqa_val_first40.json", "a file of OK-VQA's questions (format 'okvqa')"),
        (read_annotated, MPA / "chartqa_test_first40.json", "a file of ChartQA's questions (format 'chartqa')"),
        (read_annotated, official["textvqa"], "a file of TextVQA's questions (format 'textvqa')"),
        (read_annotated, lines, "not one JSON list but a data set in the format 'records'"),
        (read_annotated, table, "not one JSON list but a data set in the format 'table'"),
        (read_answers, MPA / "PA_Qwen2vl7b_okVQA.json", "a PA file (the questions and answers that a teacher wrote)"),
        (read_answers, evaluation, "an evaluation file of MPA's"),
        (read_answers, official["stvqa"], "a file of ST-VQA's questions (format 'stvqa')"),
        (read_answers, official["okvqa"], "a file of OK-VQA's questions (format 'okvqa')"),
        (read_training, answers("okVQA", STUDENT), "a PI file (what one model answers to a teacher's questions)"),
    ):
        (line,) = errors_of(reading, path)
        wanted = {read_annotated: "a PA file", read_answers: "a PI file", read_training: "a training file"}[reading]
        assert line.startswith(f"{path}: is {found}") and f", where {wanted} " in line


def test_conversations_other_than_a_question_and_its_answer_are_refused(write):
    (entry,) = json.loads(training("okVQA").read_text())
    question, answer = entry["conversations"]
    wrong = [
        [question],
        [question, answer, question, answer],
        [answer, question],
        [{**question, "value": "no image"}, answer],
        [question, {**answer, "value": 3}],
        [{**question, "weight": 1}, answer],
        "text",
    ]
    path = write([{**entry, "id": number, "conversations": turns} for number, turns in enumerate(wrong)])
    lines = errors_of(read_training, path)
    assert len(lines) == len(wrong) and all(
        re.search(r"entry \d \(id '\d'\): 'conversations' must be a turn of 'human'", line) for line in lines
    )


def test_answers_of_two_models_are_joined_by_id_and_never_by_position():
    student, teacher = (read_answers(answers("textVQA", model)) for model in (STUDENT, TEACHER))
    pairs = paired(student, teacher[::-1])
    assert pairs == paired(student, teacher) and [one for one, _ in pairs] == student
    assert all(one.question_id == other.question_id for one, other in pairs)
    assert [(one.predictions, other.predictions) for one, other in pairs][2] == ("Qantas", "Virgin")


def test_answers_to_other_questions_are_refused_with_each_difference():
    student = [Answered(id, f"/a/{id}.jpg", f"q{id}", "a", "x") for id in (1, 2, 3, "4", 5)]
    teacher = [
        Answered("1", "/elsewhere/1.jpg", "q1", "a", "y"),  # the same: an id is its text, a root is a machine's
        Answered(2, "/a/2.jpg", "another", "a", "y"),
        Answered(3, "/a/30.jpg", "q3", "b", "y"),
        Answered(6, "/a/6.jpg", "q6", "a", "y"),
        Answered(5, "/a/5.jpg", "q5", "a", "y"),
        Answered(5, "/a/5.jpg", "q5", "a", "z"),
    ]
    same = "let both models answer the same PA file"
    assert errors_of(paired, student, teacher, names=("s.json", "t.json")) == [
        "t.json: the id '5' is that of 2 entries; give each entry its own, or keep one of them",
        f"t.json: no answer to the question '4', which s.json has; {same}",
        f"s.json: no answer to the question 6, which t.json has; {same}",
        f"t.json: the question of 2 is 'another', and in s.json 'q2'; {same}",
        f"t.json: the answer of 3 is 'b', and in s.json 'a'; {same}",
        f"t.json: the image of 3 is '30.jpg', and in s.json '3.jpg'; {same}",
    ]
    assert paired(student[:1], teacher[:1]) == [(student[0], teacher[0])]


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    path = tmp_path / "a.json"
    one = Answered(1, "a.jpg", "q", "a", "p")
    assert errors_of(write_answers, path, [one, Answered("1", "a.jpg", "q", "\ud800", None)]) == [
        f"{path}: the entry '1' has no predictions",
        f"{path}: 'PA_answer of the entry 1' contains half of a surrogate pair (a broken \\u escape); rewrite that "
        "character",
        f"{path}: the id '1' is that of 2 entries; give each entry its own, or keep one of them",
    ]
    (line,) = errors_of(write_annotated, path, [Annotated(1, "a.jpg", "q", "a", ground_truth_question="q?")])
    assert line == f"{path}: the entry 1 has no ground_truth_answer"
    assert not path.exists()

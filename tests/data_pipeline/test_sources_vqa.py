"""The official files of the VQA family and MPA's: questions, images, all answers, and the one to train on."""

import json
import pickle
from pathlib import Path

import PIL.Image
import pytest

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.records import images_of
from vlm_jax.errors import InputError

MPA = Path(__file__).parents[1] / "data" / "mpa"
TEN = ["nokia", "nokia", "toshiba", "nokia", "toshiba", "nokia", "nokia", "sony", "nokia", "nokia"]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write


def read(path, **settings):
    records, errors = sources.read(path, **settings)
    assert errors == []
    return records


def error_of(path, **settings):
    with pytest.raises(InputError) as caught:
        sources.open_source(path, **settings)
    (line,) = caught.value.lines
    assert "\n" not in line
    return line


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (32, 32), "red").save(path)
    return str(path)


def turns(record):
    """The question, and the answer where there is one."""
    return [m["content"] if isinstance(m["content"], str) else m["content"][-1]["text"] for m in record.messages]


def textvqa(**fields):
    entry = {"question": "what brand?", "question_id": 7, "image_id": "00a", "answers": TEN, "set_name": "train"}
    return {"data": [{**entry, **fields}], "dataset_version": "0.5.1"}


def test_textvqa_gives_question_image_and_all_ten_answers(write, tmp_path):
    expected = image(tmp_path / "train_images" / "00a.jpg")
    (record,) = read(write("TextVQA_0.5.1_train.json", textvqa()))
    assert (record.id, record.task, record.answers) == ("7", "textvqa", TEN)
    assert turns(record) == ["what brand?", "nokia"] and images_of(record) == [expected]
    assert check_images([record]) == ({expected: (32, 32)}, [])
    (record,) = read(write("TextVQA_0.5.1_val.json", textvqa(set_name="val")))
    assert images_of(record) == [expected]  # the validation split's images lie among the training ones


def test_a_test_split_is_read_for_evaluation_and_refused_for_training_in_one_line(write, tmp_path):
    (tmp_path / "test_images").mkdir()
    content = textvqa(set_name="test")
    del content["data"][0]["answers"]
    path = write("TextVQA_0.5.1_test.json", {"data": content["data"] * 50})
    assert error_of(path).startswith(f"{path}: no entry has answers, as in a test split")
    source = sources.open_source(path, training=False)
    assert source.format == "textvqa" and len(source) == 50
    assert turns(source[0]) == ["what brand?"] and source[0].answers is None
    assert images_of(source[0]) == [str(tmp_path / "test_images" / "00a.jpg")]


@pytest.mark.parametrize(
    ("answers", "rule", "expected"),
    [
        (TEN, "majority", "nokia"),
        (["b", "a", "a", "b"], "majority", "b"),
        (["b", "a", "a", "b"], "first", "b"),
        (["", " ", "c"], "first", "c"),
        (["", "", "c"], "majority", "c"),
    ],
)
def test_the_training_answer_is_the_majority_or_the_first(write, answers, rule, expected):
    (record,) = read(write("a.json", textvqa(answers=answers)), answer=rule)
    assert turns(record)[1] == expected and record.answers == answers


def test_sampled_answers_depend_on_seed_and_id_alone(write):
    answers = [f"answer {number}" for number in range(10)]
    entries = [textvqa(question_id=number, answers=answers)["data"][0] for number in range(200)]
    forward, backward = write("a.json", {"data": entries}), write("b.json", {"data": entries[::-1]})

    def sampled(path, seed):
        return {record.id: turns(record)[1] for record in read(path, answer="sampled", seed=seed)}

    first = sampled(forward, 0)
    assert first == sampled(backward, 0) and set(first.values()) == set(answers)
    assert first != sampled(forward, 1)
    assert error_of(forward, answer="best").startswith("unknown answer 'best'")


def test_an_entry_without_a_usable_answer_is_one_error(write):
    entries = [
        textvqa(question_id=number, answers=answers)["data"][0]
        for number, answers in enumerate([TEN, ["", " "], None, [float("nan")], "nokia", TEN])
    ]
    path = write("a.json", {"data": [*entries, {**entries[0], "question_id": 9, "question": " ", "image_id": 3}]})
    records, errors = sources.read(path)
    assert [record.id for record in records] == ["0", "5"]
    assert [line.removeprefix(f"{path}, ") for line in errors] == [
        "entry 2 (id '1'): every answer is empty, so there is nothing to learn; write one or remove the entry",
        "entry 3 (id '2'): has no answers, so there is nothing to learn; remove the entry",
        "entry 4 (id '3'): 'answers' is a list with NaN (a missing value) in it; it must be a list of texts or of "
        "objects with 'answer'",
        "entry 5 (id '4'): 'answers' is a text; it must be a list of texts or of objects with 'answer'",
        "entry 7 (id '9'): the question is empty; write it or remove the entry",
        "entry 7 (id '9'): the image's id ('image_id') is a number; it must be a text",
    ]


def test_stvqa_names_its_images_by_path(write, tmp_path):
    entry = {"question_id": 5, "question": "Where?", "answers": ["bar", "pub"], "file_path": "coco-text/COCO_1.jpg"}
    (record,) = read(write("train_task_1.json", {"data": [{**entry, "file_name": "COCO_1.jpg", "dataset": "coco"}]}))
    assert (record.id, record.task, record.answers) == ("5", "stvqa", ["bar", "pub"])
    assert turns(record) == ["Where?", "bar"] and images_of(record) == [str(tmp_path / "coco-text" / "COCO_1.jpg")]


@pytest.mark.parametrize("folder", ["test/png", "png", "."])
def test_chartqa_finds_its_images_in_the_published_folders(tmp_path, folder):
    expected = image(tmp_path / folder / "multi_col_803.png")
    records = read(MPA / "chartqa_test_first40.json", image_root=tmp_path)
    assert len(records) == 40 and images_of(records[0]) == [expected]
    assert (records[0].id, records[0].task, records[0].answers) == ("0", "chartqa", ["47"])
    assert turns(records[0]) == ["How many stores did Saint Laurent operate in Western Europe in 2020?", "47"]


def test_chartqa_as_published_has_no_ids(write):
    path = write("train_human.json", [{"imgname": "1.png", "query": "How many?", "label": "3"}] * 2)
    assert [record.id for record in read(path)] == ["train_human-1", "train_human-2"]
    nan = write("b.json", [{"imgname": "1.png", "query": "How many?", "label": float("nan")}])
    assert "the answer ('label') is NaN (a missing value)" in sources.read(nan)[1][0]


def test_vizwiz_keeps_unanswerable_as_an_answer(write, tmp_path):
    answers = [{"answer": text, "answer_confidence": "yes"} for text in ["unanswerable"] * 6 + ["unsuitable"] * 4]
    entry = {"image": "VizWiz_val_0.jpg", "question": "What?", "answers": answers, "answerable": 0}
    expected = image(tmp_path / "val" / "VizWiz_val_0.jpg")
    path = write("val.json", [{**entry, "answer_type": "unanswerable"}])
    (record,) = read(path)
    assert sources.open_source(path).format == "vizwiz"
    assert record.answers == ["unanswerable"] * 6 + ["unsuitable"] * 4 and record.task == "vizwiz"
    assert turns(record) == ["What?", "unanswerable"] and images_of(record) == [expected]
    test = write("test.json", [{"image": "VizWiz_test_0.jpg", "question": "What?"}])
    assert error_of(test, format="vizwiz").startswith(f"{test}: no entry has answers")
    assert read(test, format="vizwiz", training=False)[0].task == "vizwiz"


QUESTIONS = {
    "info": {"description": "This is v2.0 of the VQA dataset."},
    "data_subtype": "train2014",
    "questions": [
        {"image_id": 9, "question": "What is it?", "question_id": 9000},
        {"image_id": 25, "question": "Where?", "question_id": 25001},
    ],
}
ANNOTATIONS = {
    "annotations": [
        {
            "question_id": question,
            "image_id": question // 1000,
            "question_type": "what",
            "answer_type": "other",
            "multiple_choice_answer": text,
            "answers": [{"answer": text, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)],
        }
        for question, text in [(25001, "there"), (9000, "food")]
    ]
}


@pytest.mark.parametrize(
    ("questions", "annotations"),
    [
        ("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"),
        ("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"),
    ],
)
def test_vqav2_finds_the_annotations_beside_the_questions(write, tmp_path, questions, annotations):
    write(annotations, ANNOTATIONS)
    path = write(questions, QUESTIONS)
    (tmp_path / "images" / "train2014").mkdir(parents=True)
    for source in (sources.open_source(path), pickle.loads(pickle.dumps(sources.open_source(path)))):
        assert source.format == "vqav2" and [turns(source[index]) for index in range(2)] == [
            ["What is it?", "food"],
            ["Where?", "there"],
        ]
        assert source[0].id == "9000" and source[0].answers == ["food"] * 10
        assert images_of(source[0]) == [str(tmp_path / "COCO_train2014_000000000009.jpg")]
    (record, _) = read(path, image_root=tmp_path / "images")
    assert images_of(record) == [str(tmp_path / "images" / "train2014" / "COCO_train2014_000000000009.jpg")]


def test_vqav2_annotations_are_named_or_in_the_same_file(write):
    questions, annotations = write("q.json", QUESTIONS), write("a.json", ANNOTATIONS)
    merged = write("both.json", {**QUESTIONS, **ANNOTATIONS})
    for path in (f"{questions}+{annotations}", merged):
        assert [record.answers[0] for record in read(path)] == ["food", "there"]
    assert "give them as QUESTIONS.json+ANNOTATIONS.json" in error_of(questions)
    assert len(read(questions, training=False)) == 2
    assert error_of(annotations).endswith("it is the annotations of VQAv2's form: give the questions file")
    llava = write("llava_questions.json", [{"conversations": []}])
    write("llava_annotations.json", {"other": 1})  # of no concern to a file that has no list of questions
    assert len(sources.open_source(llava)) == 1
    assert "no annotations can be added to it" in error_of(f"{llava}+{annotations}")
    assert error_of(f"{questions}+{annotations}s").startswith(f"{annotations}s: no such file; did you mean")


def test_annotations_of_another_split_are_one_error_and_a_missing_one_is_its_questions(write):
    questions = write("q.json", QUESTIONS)
    other = write("other.json", {"annotations": [{**ANNOTATIONS["annotations"][0], "question_id": 1}]})
    assert error_of(f"{questions}+{other}").startswith(f"{other}: annotates none of the questions of {questions}")
    one = write("one.json", {"annotations": ANNOTATIONS["annotations"][:1]})
    records, errors = sources.read(f"{questions}+{one}")
    assert [record.id for record in records] == ["25001"]
    assert errors == [f"{questions}, entry 1 (id '9000'): {one} has no annotation for the question 9000; add it"]
    broken = write("broken.json", {"annotations": [{"question_id": "x"}, 3]})
    assert error_of(f"{questions}+{broken}").startswith(f"{broken}, annotation 1: 'question_id' is a text")


def test_okvqa_is_told_by_its_description_or_its_name(write, tmp_path):
    described = {**QUESTIONS, **ANNOTATIONS, "info": {"description": "This is v1.0 of the OK-VQA dataset."}}
    path = write("questions.json", described)
    assert {record.task for record in read(path)} == {"okvqa"}
    expected = image(tmp_path / "val2014" / "COCO_val2014_000000297147.jpg")
    records = read(MPA / "okvqa_val_first40.json", image_root=tmp_path)
    assert len(records) == 40 and {record.task for record in records} == {"okvqa"}
    assert images_of(records[0]) == [expected] and len(records[0].answers) == 10
    assert turns(records[0]) == ["What sport can you use this for?", "race"]


def test_a_coco_image_needs_its_split_and_a_number(write):
    nameless = {"questions": QUESTIONS["questions"], **ANNOTATIONS}
    assert "says which images these are" in error_of(write("some.json", nameless))
    entries = [{**QUESTIONS["questions"][0], "image_id": value} for value in ("9", None, -1, 9)]
    path = write("val.json", [{**entry, "question_id": n, "answers": TEN} for n, entry in enumerate(entries)])
    records, errors = sources.read(path, format="vqav2")
    assert [Path(images_of(record)[0]).name for record in records] == ["COCO_val2014_000000000009.jpg"]
    assert [line.partition("'image_id' ")[2] for line in errors] == [
        "is a text; it must be the number of a COCO image",
        "is nothing; it must be the number of a COCO image",
        "is negative; it must be the number of a COCO image",
    ]


def test_a_key_that_no_entry_has_is_one_error_with_the_nearest_found(write):
    entries = [{"question": "What?", "question_id": n, "imageid": "a", "answers": TEN} for n in range(20)]
    path = write("a.json", {"data": entries})
    assert error_of(path, format="textvqa") == (
        f"{path}: no entry has 'image_id', so it is not in the format 'textvqa'; the first entry has 'question', "
        "'question_id', 'imageid', 'answers'. Is 'imageid' meant?"
    )


def test_an_ambiguous_file_lists_the_candidates(write):
    path = write("a.json", {"data": [{**textvqa()["data"][0], "file_path": "a.jpg"}]})
    assert error_of(path).endswith("which fits stvqa and textvqa; give the format")
    assert sources.open_source(path, format="stvqa")[0].task == "stvqa"
    both = write("b.json", [{"conversations": [], "messages": []}])
    assert error_of(both).endswith("which fits llava and records; give the format")


@pytest.mark.parametrize(
    ("name", "question", "answer", "kept"),
    [
        ("PA_Qwen2vl7b_chartVQA.json", "predicted_question", "predicted_answer", "ground_truth_answer"),
        ("PI_Qwen2vl7b_Qwen2-VL-2B-Instruct_okVQA.json", "PA_question", "PA_answer", "predictions"),
        ("Eval_Qwen2-VL-2B-Instruct_textVQA.json", "GT_question", "GT_answer", "predictions"),
    ],
)
def test_mpas_files_are_read_as_they_are(name, question, answer, kept):
    entries = json.loads((MPA / name).read_text())
    records = read(MPA / name)
    assert len(records) == len(entries) > 0
    for record, entry in zip(records, entries, strict=True):
        assert turns(record) == [entry[question], entry[answer]] and record.answers == [entry[answer]]
        assert images_of(record) == [entry["image_path"]] and record.id == str(entry["question_id"])
        assert record.provenance[kept] == entry[kept] and record.task == "mpa"


@pytest.mark.parametrize("name", sorted(path.name for path in MPA.glob("*.json")))
def test_every_file_of_mpa_is_recognised_and_read_whole(name):
    assert len(read(MPA / name)) == len(json.loads((MPA / name).read_text()))
    assert len(read(MPA / name, training=False)) == len(json.loads((MPA / name).read_text()))


@pytest.mark.parametrize("below", ["data/TextVQA/train_images", "TextVQA/train_images", "train_images", "."])
def test_mpas_absolute_images_are_found_below_the_image_root(tmp_path, below):
    name = "0054c91397f2fe05.jpg"
    expected = image(tmp_path / below / name)
    (tmp_path / "train_images").mkdir(exist_ok=True)  # a shorter end of the path exists as well
    records = read(MPA / "PA_Qwen2vl7b_textVQA.json", image_root=tmp_path)
    assert images_of(records[0]) == [expected]
    sizes, errors = check_images(records)
    assert list(sizes) == [expected] and len(errors) == len({images_of(record)[0] for record in records}) - 1


def test_mpas_training_files_are_moved_too_when_asked_for(tmp_path):
    path = MPA / "PI_Qwen2vl7b_train_Qwen2-VL-7B-Instruct_Qwen2-VL-2B-Instruct_textVQA.json"
    assert images_of(read(path)[0]) == ["/workspace/data/TextVQA/train_images/00685bc495504d61.jpg"]
    (record,) = read(path, format="mpa", image_root=tmp_path)
    assert images_of(record) == [str(tmp_path / "00685bc495504d61.jpg")]
    assert turns(record) == ["What airline does the plane belong to", "Virgin"]


def test_looking_for_mpas_images_touches_each_folder_once(tmp_path, monkeypatch):
    from vlm_jax import locations

    asked = []
    original = locations.is_folder
    entries = [
        {"question_id": n, "image_path": f"/w/data/set/images/{n}.jpg", "PA_question": "Q", "PA_answer": "A"}
        for n in range(100)
    ]
    path = tmp_path / "pi.json"
    path.write_text(json.dumps(entries))
    monkeypatch.setattr(locations, "is_folder", lambda path: asked.append(path) or original(path))
    assert len(read(path, image_root=tmp_path)) == 100
    assert len(asked) < 10


def test_an_id_with_a_broken_character_is_an_error(write):
    path = write("a.json", textvqa(question_id="\ud800"))
    ((error,), records) = sources.read(path, answer="sampled")[::-1]
    assert records == [] and "'id' contains half of a surrogate pair" in error and error.isprintable()


@pytest.mark.parametrize("identifier", [2**63, -(2**63) - 1, 10**30])
@pytest.mark.parametrize("where", ["question", "annotation"])
def test_ids_of_more_than_64_bits_are_told(write, tmp_path, identifier, where):
    ids = {"question": 1, "annotation": 1} | {where: identifier}
    image(tmp_path / "a.jpg")
    asked = write("v2_OpenEnded_mscoco_val2014_questions.json",
                  {"questions": [{"question_id": ids["question"], "image": "a.jpg", "question": "Who?"}]})  # fmt: skip
    write("v2_mscoco_val2014_annotations.json",
          {"annotations": [{"question_id": ids["annotation"], "multiple_choice_answer": "I"}]})  # fmt: skip
    try:
        _, errors = sources.read(asked)
    except InputError as error:
        errors = error.lines
    assert errors and all("\n" not in error for error in errors)
    assert any("64 bits" in error or "question_id" in error for error in errors), errors

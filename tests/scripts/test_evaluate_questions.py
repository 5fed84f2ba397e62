"""What scripts/evaluate.py asks of several files, and which earlier answers it sets beside its own."""

import dataclasses
import importlib
import json
import shutil
import sys

import PIL.Image
import pytest

from data_pipeline import evaluation_questions, sources
from data_pipeline.evaluation_settings import Evaluation
from data_pipeline.questions import questions_of
from vlm_jax.errors import InputError
from vlm_jax.evaluation import controls, runner


@pytest.fixture(scope="module")
def module():
    known_flags = importlib.import_module("command_line").FLAGS
    known = set(known_flags)
    yield importlib.import_module("evaluation_flags")
    sys.modules.pop("evaluation_flags")
    for name in set(known_flags) - known:
        delattr(known_flags, name)


class Asked:
    """Questions and baselines as an evaluation reads them."""

    @staticmethod
    def read_questions(files, **settings):
        return evaluation_questions.read_questions(Evaluation("m", ",".join(files), "o", metric="exact", **settings))

    @staticmethod
    def read_baseline(folder, questions):
        evaluation = Evaluation("m", "b", "o", metric="exact", baseline=folder)
        return evaluation_questions.read_baseline(evaluation, questions)


@pytest.fixture
def evaluate():
    return Asked


def table(path, *rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def llava(path, *ids):
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": path.stem}]
    path.write_text(json.dumps([{"id": id, "conversations": turns} for id in ids]))
    return str(path)


def records(path, *ids):
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": path.stem}]
    path.write_text("".join(json.dumps({"id": id, "messages": turns}) + "\n" for id in ids))
    return str(path)


def test_columns_of_a_benchmark_are_mapped_as_in_training(evaluate, tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    file = table(tmp_path / "a.csv", "img,q,truth", "a.png,What?,A dot")
    (question,) = evaluate.read_questions([file], columns={"image": "img", "question": "q", "answer": "truth"})
    assert question.answers == ["A dot"] and controls.images_of(question) == [str(tmp_path / "a.png")]
    (question,) = evaluate.read_questions([file], columns={"image": "img", "answer": "truth"}, question="Which?")
    assert question.text == "Which?"


@pytest.mark.parametrize(
    ("column", "error"),
    [
        (["image"], "--column.image is ''; wanted the name of a column"),
        (["imag=img"], "--column: nothing called 'imag' is read; is 'image' meant?"),
        (["image=img", "image=file"], "--column=image=file: image is named already, as img"),
        (["image=imgg", "question=q", "answer=truth"], "no entry has 'imgg', which is named for 'image'; the columns"),
    ],
)
def test_a_mapping_that_cannot_be_followed_is_refused(module, evaluate, tmp_path, column, error):
    file = table(tmp_path / "a.csv", "img,q,truth", "a.png,What?,A dot")
    with pytest.raises(InputError) as caught:
        evaluate.read_questions([file], columns=module.columns(column))
    assert any(error in line for line in caught.value.lines)


def test_files_of_other_programs_may_share_ids(evaluate, tmp_path, capsys):
    files = [llava(tmp_path / "a.json", "1", "2"), llava(tmp_path / "b.json", "2", "3", "1")]
    questions = evaluate.read_questions(files)
    assert [one.id for one in questions] == ["1", "2", "2 (2)", "3", "1 (2)"]
    assert [one.answers for one in questions] == [["a"], ["a"], ["b"], ["b"], ["b"]]
    output = "2 records have ids that a record of another file has; they are told apart by their order"
    assert capsys.readouterr().err == f"{files[1]}: {output}\n"


def test_ids_that_already_have_a_number_stay_unique_and_are_counted_once(evaluate, tmp_path, capsys):
    files = [llava(tmp_path / "a.json", "1", "1 (2)"), llava(tmp_path / "b.json", "1"), llava(tmp_path / "c.json", "1")]
    assert [one.id for one in evaluate.read_questions(files)] == ["1", "1 (2)", "1 (3)", "1 (4)"]
    assert capsys.readouterr().err.count(": 1 record has an id that a record of another file has") == 2


def test_tables_without_ids_in_two_folders_of_one_name_are_read(evaluate, tmp_path):
    files = []
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        files.append(table(tmp_path / folder / "t.csv", "image,question,answer", f",What?,{folder}", f",Who?,{folder}"))
    questions = evaluate.read_questions(files)
    assert len({one.id for one in questions}) == 4
    assert [one.answers for one in questions] == [["x"], ["x"], ["y"], ["y"]]


def test_own_records_insist_on_their_ids_and_keep_them_beside_others(evaluate, tmp_path):
    ours, theirs = records(tmp_path / "r.jsonl", "1", "2"), llava(tmp_path / "a.json", "1", "2")
    both = {
        tuple(files): [one.id for one in evaluate.read_questions(files)] for files in ([ours, theirs], [theirs, ours])
    }
    assert list(both.values()) == [["1", "2", "1 (2)", "2 (2)"], ["1 (2)", "2 (2)", "1", "2"]]
    more = records(tmp_path / "s.jsonl", "2", "3")
    with pytest.raises(InputError) as refused:
        evaluate.read_questions([ours, theirs, more, str(tmp_path / "none.json")])
    assert len(refused.value.lines) == 2
    assert "none.json" in refused.value.lines[0]
    assert f"the id '2' is already that of {ours}, line 2" in refused.value.lines[1]


@pytest.mark.parametrize("make", [llava, records])
def test_a_file_that_is_named_twice_is_refused_by_its_name(make, evaluate, tmp_path, monkeypatch):
    path = make(tmp_path / "a.json", "1", "2")
    monkeypatch.chdir(tmp_path)
    for again in (path, "a.json", f"{tmp_path}/./a.json", " a.json"):
        with pytest.raises(InputError) as refused:
            evaluate.read_questions([path, again])
        assert refused.value.lines == [f"{path}: is named 2 times in --benchmark; name it once"]


def answered(folder, questions, images="given"):
    """A folder as an evaluation leaves it."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"images": images}))
    shown = controls.CONTROLS[images](questions)
    says_x = runner.texts(lambda asked: ["x"] * len(asked))
    list(runner.predict(shown, says_x, folder / "predictions.jsonl", metric="exact"))
    return str(folder)


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "data").mkdir()
    for colour in ("red", "green", "blue"):
        PIL.Image.new("RGB", (8, 8), colour).save(tmp_path / "data" / f"{colour}.png")

    def read(*colours, folder="data", name="t.csv"):
        path = tmp_path / folder / name
        return sources.read(table(path, "image,question,answer", *(f"{colour}.png,What?,x" for colour in colours)))[0]

    return lambda *colours, **more: [
        question for record in read(*colours, **more) for question in questions_of(record, [])
    ]


@pytest.mark.parametrize("rows", [("green", "red"), ("blue", "red", "green"), ("red", "blue"), ("green",)])
def test_a_baseline_that_was_shown_other_images_is_refused(rows, evaluate, photos, tmp_path):
    base = answered(tmp_path / "base", photos("red", "green"))
    assert len(evaluate.read_baseline(base, photos("red", "green", "blue"))) == 2
    with pytest.raises(InputError, match="something else at 't-.': its images are others, or"):
        evaluate.read_baseline(base, photos(*rows))


def test_a_baseline_that_had_another_conversation_is_refused(evaluate, photos, tmp_path):
    questions = photos("red", "green")
    base = answered(tmp_path / "base", questions)
    for extra in ("system", "user"):
        before = [{"role": extra, "content": "Be brief."}]
        others = [questions[0], dataclasses.replace(questions[1], messages=before + questions[1].messages)]
        with pytest.raises(InputError, match="something else at 't-"):
            evaluate.read_baseline(base, others)


def test_a_baseline_without_digests_or_of_a_folder_that_moved_is_compared(evaluate, photos, tmp_path):
    questions = photos("red", "green")
    base = answered(tmp_path / "base", questions)
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert len(evaluate.read_baseline(base, photos("red", "green", folder="moved"))) == 2
    path = tmp_path / "base" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({k: line[k] for k in list(line)[:8]}) + "\n" for line in lines))
    assert len(evaluate.read_baseline(base, photos("green", "red", folder="moved"))) == 2
    other = [dataclasses.replace(one, messages=[{"role": "user", "content": "Who?"}]) for one in questions]
    with pytest.raises(InputError, match="something else"):
        evaluate.read_baseline(base, other)


@pytest.mark.parametrize("images", ["blank", "swapped"])
def test_a_baseline_with_other_images_on_purpose_is_compared_by_its_words(images, evaluate, photos, tmp_path):
    questions = photos("red", "green")
    base = answered(tmp_path / "base", questions, images)
    assert len(evaluate.read_baseline(base, questions)) == 2
    other = [
        dataclasses.replace(one, messages=[{"role": "system", "content": "No."}, *one.messages]) for one in questions
    ]
    with pytest.raises(InputError, match="something else"):
        evaluate.read_baseline(base, other)


def test_what_a_baseline_could_not_be_asked_may_have_its_image_by_now(evaluate, photos, tmp_path):
    def broken(conversations):
        raise InputError("red.png: not an image")

    (tmp_path / "base").mkdir()
    (tmp_path / "data" / "red.png").rename(tmp_path / "red.png")
    path = tmp_path / "base" / "predictions.jsonl"
    assert [one.error for one in runner.predict(photos("red"), broken, path, metric="exact")] == [
        "red.png: not an image"
    ]
    (tmp_path / "red.png").rename(tmp_path / "data" / "red.png")
    assert [one.score for one in evaluate.read_baseline(str(tmp_path / "base"), photos("red")).values()] == [0.0]


def test_what_a_metric_cannot_compare_with_is_told_before_anything_is_asked(tmp_path):
    file = table(tmp_path / "a.csv", "id,image,question,answer", "one,,What?,red", "two,,Which? A. red B. blue,B")

    def errors(**settings):
        with pytest.raises(InputError) as error:
            evaluation_questions.read_questions(Evaluation("m", file, "o", **settings))
        return error.value.lines

    assert errors(metric="multiple_choice") == [
        "question 'one': multiple_choice: the accepted answer 'red' is no option; there is no text of the question"
    ]
    both = errors(metric="vqa_evalai")
    assert len(both) == 2 and all("there is one alone; take another metric" in line for line in both)
    assert errors(metric="bem") == [
        "--metric=bem: needs the folder of a BertForSequenceClassification, as bem=… or --bem"
    ]
    assert errors(metric="exact", bem="x") == ["--metric=exact: has no use for bem"]
    (gone,) = errors(metric="encyclopedic_vqa", bem=str(tmp_path / "gone"))
    assert "is no folder of a Hugging Face model" in gone
    assert errors(metric="judge")[0].startswith("--metric=judge: needs somebody to ask")
    assert len(evaluation_questions.read_questions(Evaluation("m", file, "o", metric="final_answer:anls"))) == 2

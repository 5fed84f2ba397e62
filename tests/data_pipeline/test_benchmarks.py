"""Benchmarks from their official files to what is handed in: read, asked, scored, written; and what is refused."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_pipeline import sources
from data_pipeline.answering_models import AnsweringModel
from data_pipeline.evaluation_questions import read
from data_pipeline.evaluation_run import ask
from data_pipeline.evaluation_settings import Evaluation, settings_of_questions, with_defaults
from data_pipeline.sources import official
from tests.data_pipeline import official_files
from tests.data_pipeline.official_files import WRITERS, evqa_row, write_json, write_lines, write_rows
from vlm_jax.errors import InputError
from vlm_jax.evaluation import report, runner
from vlm_jax.evaluation.benchmarks import BENCHMARKS
from vlm_jax.evaluation.runner import text_of
from vlm_jax.processing.chat import image_parts


def evaluation_of(name, data, folder, **settings):
    return with_defaults(Evaluation("m", name, str(folder / "out"), data=str(data), **{"metric": "exact", **settings}))


def asked_of(name, data, folder, **settings):
    return read(evaluation_of(name, data, folder, **settings), lambda line: None)


def refused(name, data, folder, **settings):
    with pytest.raises(InputError) as caught:
        asked_of(name, data, folder, **settings)
    return caught.value.lines


def answered(evaluation, replies):
    """The report of an evaluation in which these are the answers, in order; with what was noticed."""
    said, left = [], list(replies)
    asked = read(evaluation, said.append)
    model = AnsweringModel(runner.texts(lambda batch: [left.pop(0) for _ in batch]), {}, "nothing")
    summary = ask(evaluation, asked, model, say=said.append)
    return summary, said


def handed_in(folder, name):
    path = Path(folder) / BENCHMARKS[name].submission.file
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def groups_of(question):
    """Those that a reader gives; what any question is told apart by is left out."""
    return {name: value for name, value in question.groups.items() if name not in ("task", "image megapixels")}


def changed(path, change):
    """The JSON of a file after `change`, which is given its value."""
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    return write_json(Path(path), change(value) or value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_official_files_are_asked_scored_and_handed_in(name, tmp_path):
    case, entry = WRITERS[name](tmp_path), BENCHMARKS[name]
    evaluation = evaluation_of(name, case.data, tmp_path, metric=None)
    asked = read(evaluation, lambda line: None)
    assert [text_of(one.messages[-1]) for one in asked.questions] == case.prompts
    shown = [part["image"] for one in asked.questions for part in image_parts(one.messages)]
    assert len(shown) == 2 and all(Path(path).is_file() for path in shown)
    groups = groups_of(asked.questions[0])
    assert groups == case.groups and {*groups} == {*entry.groups}

    summary, said = answered(evaluation, case.replies)
    assert (summary["n"], summary["mean"], summary["metric"]) == (2, 0.5, entry.metric)
    assert summary["settings"]["suffix"] == entry.suffix and summary["settings"]["template"] == entry.template
    assert summary["settings"]["max_new_tokens"] == entry.max_new_tokens and summary["settings"]["benchmark"] == name
    assert set(summary.get("by", {})) >= set(entry.groups)
    assert summary.get("headline", {}).get("value") == case.headline
    assert summary.get("also", {}).keys() == set(entry.also)
    if case.submission is None:
        assert entry.submission is None and not [*(tmp_path / "out").glob("submission*")]
    else:
        assert handed_in(tmp_path / "out", name) == case.submission  # ids of their own type
    assert "zzz" in (tmp_path / "out" / "report.html").read_text() or name.startswith("syn")


@pytest.mark.parametrize(
    ("settings", "prompt"),
    [
        ({"suffix": ""}, "what brand is this?"),
        ({"suffix": "\\nBriefly."}, "what brand is this?\nBriefly."),
        ({"template": "Look. {question}"}, f"Look. what brand is this?{official_files.SHORT}"),
    ],
)
def test_what_a_flag_says_goes_before_the_entry(settings, prompt, tmp_path):
    data = official_files.textvqa(tmp_path).data
    evaluation = evaluation_of("textvqa", data, tmp_path, max_new_tokens=7, visual_tokens="recommended", **settings)
    first, _ = read(evaluation, lambda line: None).questions
    assert text_of(first.messages[-1]) == prompt and first.text == "what brand is this?"  # as the report names it
    assert (evaluation.max_new_tokens, evaluation.visual_tokens) == (7, (256, 2048))
    assert settings_of_questions(evaluation)["suffix"] == settings.get("suffix", official_files.SHORT).replace(
        "\\n", "\n"
    )


def test_a_split_without_answers_is_handed_in_and_not_scored(tmp_path):
    def hidden(document):
        for entry in document["data"]:
            entry["set_name"] = "test"
            del entry["answers"]

    data = changed(official_files.textvqa(tmp_path).data, hidden)
    summary, said = answered(evaluation_of("textvqa", data, tmp_path), ["a", "b"])
    assert summary["unscored"].startswith("no answers in this split") and "mean" not in summary
    assert summary["published"] == {"split": "test", "size": 5734}
    assert [entry["answer"] for entry in handed_in(tmp_path / "out", "textvqa")] == ["a", "b"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [(line["score"], line["answers"]) for line in lines] == [(None, []), (None, [])]
    assert "no answers in this split" in (tmp_path / "out" / "report.html").read_text()


def test_answers_that_are_published_must_be_there_all_of_them(tmp_path):
    data = official_files.vqav2(tmp_path).data
    (tmp_path / "v2_mscoco_val2014_annotations.json").rename(tmp_path / "elsewhere.json")
    (error,) = refused("vqav2", data, tmp_path)
    assert "no question has an answer, and those of VQAv2's split 'val' are published" in error
    assert len(asked_of("vqav2", f"{data}+{tmp_path}/elsewhere.json", tmp_path).questions) == 2
    textvqa = changed(
        official_files.textvqa(tmp_path).data, lambda document: document["data"][1].pop("answers") and None
    )
    (error,) = refused("textvqa", textvqa, tmp_path)
    assert "entry 2 (id '34603'): has neither answers nor" in error


def test_missing_and_doubled_ids_are_named_all_together(tmp_path):
    def spoil(document):
        first, second = document["data"]
        document["data"] += [dict(first), {**second, "question_id": None}, {**first, "question_id": "34602"}]

    data = changed(official_files.textvqa(tmp_path).data, spoil)
    place = f"{data}, entry"
    assert refused("textvqa", data, tmp_path) == [
        f"{place} 3 (id '34602'): the 'question_id' 34602 is already that of {place} 1 (id '34602'); keep one of them",
        f"{place} 4: has no 'question_id', which its answer is handed in under; add it",
    ]


def test_annotations_of_another_split_or_given_twice_are_refused(tmp_path):
    data = official_files.vqav2(tmp_path).data
    annotations = tmp_path / "v2_mscoco_val2014_annotations.json"
    whole = annotations.read_text()
    changed(annotations, lambda document: document.update(data_subtype="train2014"))
    (error,) = refused("vqav2", data, tmp_path)
    assert error.startswith(f"{annotations}: is of the split 'train2014', and {data} of 'val2014'")
    annotations.write_text(whole)
    changed(annotations, lambda document: document.update(annotations=document["annotations"] * 2))
    (error,) = refused("vqav2", data, tmp_path)
    assert error == f"{annotations}: holds several annotations for 'question_id' 9001, 25001; keep one of each"


@pytest.mark.parametrize(
    ("name", "rename", "lines"),
    [
        ("textvqa", {"image_id": "img"}, ["no entry has 'image_id'"]),
        ("docvqa", {"questionId": "qid", "image": "picture"}, ["no entry has 'questionId'", "no entry has 'image'"]),
        ("stvqa", {"file_path": "path"}, ["no entry has 'file_path'"]),
    ],
)
def test_a_field_that_is_missing_is_named_with_its_file(name, rename, lines, tmp_path):
    data = WRITERS[name](tmp_path).data

    def renamed(document):
        document["data"] = [{rename.get(key, key): value for key, value in one.items()} for one in document["data"]]

    errors = refused(name, changed(data, renamed), tmp_path)
    assert [error.partition(": ")[0] for error in errors] == [data] * len(lines)
    assert all(line in error for line, error in zip(lines, errors, strict=True))


def test_older_layouts_are_read(tmp_path):
    def older_textvqa(document):
        for entry in document["data"]:
            del entry["set_name"], entry["image_classes"]

    data = changed(official_files.textvqa(tmp_path).data, older_textvqa)
    asked = asked_of("textvqa", data, tmp_path)
    assert asked.published == {"split": "val", "size": 5000} and groups_of(asked.questions[0]) == {}

    def older_vqa(document):
        for one in document["annotations"]:
            one["answers"] = [{"answer": answer["answer"]} for answer in one["answers"]]

    vqav2 = official_files.vqav2(tmp_path).data
    changed(tmp_path / "v2_mscoco_val2014_annotations.json", older_vqa)
    assert asked_of("vqav2", vqav2, tmp_path).questions[0].answers == ["down"] * 10
    vizwiz = changed(
        official_files.vizwiz(tmp_path).data, lambda entries: [one.pop("answerable") for one in entries] and None
    )
    assert groups_of(asked_of("vizwiz", vizwiz, tmp_path).questions[0]) == {"answer_type": "other"}


def test_infoseeks_numbers_are_ranges_and_its_files_fit_together(tmp_path):
    data = official_files.infoseek(tmp_path).data
    entries = [json.loads(line) for line in Path(data).read_text().splitlines()]
    number = {"wikidata": 1.5, "range": [1.35, 1.65]}
    write_lines(Path(data), {**entries[0], "answer_eval": [number]}, {**entries[1], "answer_eval": number})
    for question in asked_of("infoseek", data, tmp_path).questions:
        assert [json.loads(answer) for answer in question.answers] == [number]
    broken = [{**entries[0], "answer_eval": [{"wikidata": 1}]}, {key: entries[1][key] for key in list(entries[1])[:4]}]
    write_lines(Path(data), *broken, {**entries[1], "data_id": "infoseek_val_2"})
    errors = [error.partition(": ")[2] for error in refused("infoseek", data, tmp_path)]
    assert errors == [
        "'answer_eval' has '{\"wikidata\": 1}'; wanted texts, or {'wikidata', 'range': [low, high]}",
        "has no 'answer_eval', which the official evaluation compares with; give the newer file",
        f"{tmp_path}/infoseek_val_qtype.jsonl has no line for the question 'infoseek_val_2'; add it",
        f"{tmp_path}/infoseek_val_withkb.jsonl has no line for the question 'infoseek_val_2'; add it",
    ]
    for name in ("qtype", "withkb"):
        (tmp_path / f"infoseek_val_{name}.jsonl").unlink()
    write_lines(Path(data), *entries)
    first, _ = asked_of("infoseek", data, tmp_path).questions
    assert groups_of(first) == {"data_split": "unseen_question"}


def test_infoseeks_range_is_scored_from_the_record(tmp_path):
    data = official_files.infoseek(tmp_path).data
    entries = [json.loads(line) for line in Path(data).read_text().splitlines()]
    write_lines(Path(data), *({**one, "answer_eval": [{"wikidata": 1.5, "range": [1.35, 1.65]}]} for one in entries))
    summary, _ = answered(evaluation_of("infoseek", data, tmp_path, metric=None), ["1.4 m", "2 m"])
    assert summary["mean"] == 0.5


def test_a_row_with_several_images_is_as_many_questions(tmp_path):
    rows = [
        evqa_row("Who?", "abcd|abce|abcf"),
        evqa_row("Which?", "abcg", question_type="multi_answer", answer="a&&b|c"),
    ]
    questions = asked_of("encyclopedic_vqa", write_rows(tmp_path / "val.csv", *rows), tmp_path).questions
    assert [one.id for one in questions] == ["val-1/1", "val-1/2", "val-1/3", "val-2"]
    assert [one.messages[0]["content"][0]["image"][-8:] for one in questions] == [f"abc{end}.jpg" for end in "defg"]
    assert questions[3].answers == ["a&&b", "c&&"]  # each a list
    rows = [evqa_row("Who?", "a", question_type="hard"), evqa_row("Who?", "a", dataset_name="coco", answer="")]
    errors = refused("encyclopedic_vqa", write_rows(tmp_path / "val.csv", *rows), tmp_path)
    assert [error.partition(": ")[2].partition(";")[0] for error in errors] == [
        "'question_type' is 'hard'",
        "'dataset_name' is 'coco'",
    ]


def test_several_questions_about_one_article_are_asked_each_with_it(tmp_path):
    entry = {
        "id": "a",
        "image": "a.jpg",
        "context": "It is wheat.",
        "questions": ["What?", "Why?"],
        "answers": ["wheat", ["x", "y"]],
    }
    path = write_json(tmp_path / "sk.json", [entry, {**entry, "id": "b", "answers": ["wheat"]}])
    assert refused("sk_vqa", path, tmp_path) == [
        f"{path}, entry 2 (id 'b'): has no 'question'; give the question",
    ]
    path = write_json(tmp_path / "sk.json", [entry])
    questions = asked_of("sk_vqa", path, tmp_path, suffix="").questions
    assert [(one.id, text_of(one.messages[-1]), one.answers) for one in questions] == [
        ("a/1", "It is wheat.\n\nWhat?", ["wheat"]),
        ("a/2", "It is wheat.\n\nWhy?", ["x", "y"]),
    ]


@pytest.mark.parametrize("name", ["records.jsonl", "table.csv", "parquet.parquet"])
def test_ids_and_groups_travel_through_files_of_other_forms(name, tmp_path):
    data = official_files.infoseek(tmp_path).data
    records, _ = sources.read(data, training=False)
    sources.write(tmp_path / name, records, format=name.partition(".")[0])
    first, *_ = sources.read(tmp_path / name, training=False)[0]
    assert official.of(first) == official.Official(
        {"data_id": "infoseek_val_00000000"}, "val", {"data_split": "unseen_question", "question_type": "string"}
    )
    assert first.provenance["entity_id"] == "Q837" and first.answers == ["Nepal", "NPL"]


def test_a_published_figure_needs_all_of_its_groups(tmp_path):
    human, _ = official_files.chartqa(tmp_path).data.split(",")
    summary, _ = answered(evaluation_of("chartqa", human, tmp_path), ["47"])
    assert summary["headline"] == {"rule": "mean", "group": "source", "missing": ["augmented"]}
    assert summary["published"] == {"split": "test", "size": 2500}


def test_no_submission_of_other_images_or_of_files_in_another_form(tmp_path):
    data = official_files.vizwiz(tmp_path).data
    summary, said = answered(evaluation_of("vizwiz", data, tmp_path, images="swapped"), ["a", "b"])
    assert "submission" not in summary and any("--images=swapped" in line for line in said)
    lines = [{"image": "", "question": "Who?", "answer": "I"}]
    table = write_lines(tmp_path / "own.jsonl", *lines)
    evaluation = dataclasses.replace(evaluation_of("vizwiz", table, tmp_path / "own", format="table"))
    (tmp_path / "own").mkdir()
    summary, _ = answered(evaluation, ["I"])
    assert summary["mean"] == 1 and "submission" not in summary


def test_what_could_not_be_asked_is_handed_in_empty_and_said(tmp_path):
    case = official_files.stvqa(tmp_path)
    evaluation = evaluation_of("stvqa", case.data, tmp_path)

    def answer(batch):
        raise InputError("5.jpg: not an image")

    said = []
    asked = read(evaluation, said.append)
    summary = ask(evaluation, asked, AnsweringModel(answer, {}, "nothing"), say=said.append)
    assert len(summary["errors"]) == 2 and [one["answer"] for one in handed_in(tmp_path / "out", "stvqa")] == ["", ""]
    assert said == ["submission.json: 2 of 2 answers are empty, of what could not be asked"]


@pytest.mark.parametrize(
    ("benchmark", "settings", "lines"),
    [
        ("textvq", {"data": "a.json"}, ["no benchmark is called 'textvq'; did you mean textvqa?"]),
        ("own.csv", {"data": "a.json"}, ["no benchmark is called 'own.csv'; there are textvqa, stvqa, "]),
        ("textvqa", {}, ["--data is not given; wanted the official files of TextVQA: TextVQA_0.5.1_{split}.json"]),
        (
            "own.csv",
            {"visual_tokens": "recommended"},
            ["--visual_tokens=recommended: only benchmarks", "own.csv: no such"],
        ),
        (
            "own.csv",
            {"template": "{cntext}{question}", "suffix": 3},
            ["--template: nothing is called {cntext}; did you mean {context}?", "--suffix is 3", "own.csv: no such"],
        ),
        ("vqav2", {"data": "a.json,./a.json"}, ["a.json: is named 2 times in --data", "a.json: no such file"]),
    ],
)
def test_settings_that_do_not_fit_are_told_together(benchmark, settings, lines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        read(with_defaults(Evaluation("m", benchmark, "out", **{"metric": "exact", **settings})), lambda line: None)
    assert len(caught.value.lines) == len(lines)
    assert all(line in error for line, error in zip(lines, caught.value.lines, strict=True))


def test_a_context_that_the_template_shows_must_be_there(tmp_path):
    data = write_lines(tmp_path / "own.jsonl", {"image": "", "question": "Who?", "answer": "I"})
    (error,) = refused(data, "", tmp_path, template="{context} {question}")
    assert error.startswith(f"{data}, line 1: has no 'context', which the template shows")


def test_an_evaluation_from_before_there_were_prompts_goes_on_and_another_prompt_does_not(tmp_path):
    data = write_lines(tmp_path / "own.jsonl", {"image": "", "question": "Who?", "answer": "I"})
    settings = {"benchmark": data, "images": "given", "metric": "exact", "max_new_tokens": 64}
    (tmp_path / "out").mkdir()
    write_json(tmp_path / "out" / "settings.json", settings)
    summary, _ = answered(evaluation_of(data, "", tmp_path), ["I"])
    assert summary["mean"] == 1
    with pytest.raises(InputError, match="holds an evaluation with another suffix"):
        answered(evaluation_of(data, "", tmp_path, suffix=" Briefly."), ["I"])


def test_vizwiz_tells_how_well_questions_without_an_answer_are_told(tmp_path):
    def without_answer(entries):
        entries[1]["answerable"] = 0

    data = changed(official_files.vizwiz(tmp_path).data, without_answer)
    summary, _ = answered(evaluation_of("vizwiz", data, tmp_path), ["unanswerable", "Unanswerable."])
    told = summary["answerability"]
    assert (told["n"], told["unanswerable"], told["recall"], told["precision"]) == (2, 1, 1.0, 0.5)
    assert "answerability: 1 of 2 have no answer; told right 50.0%" in report.table(summary)


def test_an_image_that_cannot_be_read_is_told_wrong_by_answerability_too(tmp_path):
    def missing(entries):
        entries[0]["answerable"], entries[1]["answerable"] = 1, 0
        for entry in entries:
            entry["image"] = f"gone-{entry['image']}"

    def never(conversations):
        raise InputError("no such image")

    data = changed(official_files.vizwiz(tmp_path).data, missing)
    evaluation = evaluation_of("vizwiz", data, tmp_path)
    model = AnsweringModel(never, {"model": "m"}, "nothing")
    summary = ask(evaluation, read(evaluation, lambda line: None), model, say=lambda line: None)
    assert len(summary["errors"]) == 2 and summary["answerability"]["accuracy"] == 0.0

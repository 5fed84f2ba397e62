"""A whole evaluation as a function: several models, what was forgotten, devices, teachers, and after a kill."""

import csv
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline.evaluation_questions import read_questions
from data_pipeline.evaluation_run import evaluate, evaluate_several
from data_pipeline.evaluation_settings import Evaluation
from data_pipeline.teachers.settings import in_text
from tests.started import ROOT
from tests.tiny_models import ONE_LAYER, PHOTOS, save_tiny
from tests.training.test_meshes import environments
from vlm_jax.errors import InputError

IMAGES = ("chelsea", "coffee", "astronaut")
QUESTIONS = ("What is it?", "What is it called?", "Which colour is it?")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folders = []
    for seed in range(2):
        folders.append(tmp_path_factory.mktemp(f"model{seed}"))
        save_tiny(folders[-1], seed=seed, **ONE_LAYER)
    return folders


@pytest.fixture
def data(tmp_path):
    def table(name, questions):
        with (tmp_path / name).open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", "question", "answer"])
            rows.writerows([PHOTOS / f"{image}.jpg", question, "yes"] for image in IMAGES for question in questions)
        return str(tmp_path / name)

    return table("asked.csv", QUESTIONS), table("general.csv", QUESTIONS[:1])


def evaluation(model, data, output, **settings):
    return Evaluation(str(model), data[0], str(output), max_new_tokens=4, **settings)


def predictions(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_several_models_stand_side_by_side_and_general_sets_apart(models, data, tmp_path):
    said = []
    one = evaluation("", data, tmp_path / "out", general=data[1])
    summary, folder = evaluate_several(one, [str(model) for model in models], say=said.append)
    assert folder == tmp_path / "out" / f"2-{models[1].name}" and said[0] == f"1 of 2: {models[0]}"
    assert summary == json.loads((folder / "report.json").read_text())
    assert summary["n"] == 9 and summary["images"] == 3 and list(summary["general"]) == [data[1]]
    assert summary["general"][data[1]]["n"] == 3 and summary["general"][data[1]]["metric"] == "normalised/2"
    (name,) = summary["baselines"]
    assert name == f"1-{models[0].name}" and summary["baselines"][name]["n"] == 9
    assert summary["baselines"][name]["difference"]["clusters"] == 3
    assert list(summary["by"]["visual tokens"]) == ["up to 16"] and "image megapixels" in summary["by"]
    page = (folder / "report.html").read_text()
    assert "What may have been forgotten" in page and name in page and "What the words mean" in page
    assert (folder / "scores.png").read_bytes()[:4] == b"\x89PNG"
    speed = json.loads((folder / "speed.json").read_text())
    assert speed["questions"] == 12 and speed["tokens"] > 0 and speed["seconds"] > 0


def test_questions_about_one_image_stay_together_where_other_images_are_shown(models, data, tmp_path):
    summary = evaluate(evaluation(models[0], data, tmp_path / "blank", images="blank"), say=lambda line: None)
    assert summary["n"] == 9 and summary["images"] == 3


def test_what_is_answered_is_kept_when_a_person_interrupts_and_that_is_said(models, data, tmp_path):
    said, one = [], evaluation(models[0], data, tmp_path / "out")

    def progress(answers, total):
        for number, answer in enumerate(answers):
            if number == 4:
                raise KeyboardInterrupt
            yield answer

    with pytest.raises(KeyboardInterrupt):
        evaluate(one, say=said.append, progress=progress)
    assert said[-1].startswith("5 of 9 answers are kept in ") and said[-1].endswith("goes on with the others")
    assert evaluate(one, say=said.append)["n"] == 9


def test_answers_that_are_empty_or_too_few_for_the_metric_are_told(models, tmp_path):
    lines = [
        {"id": id, "messages": [{"role": "user", "content": "What?"}], "answers": answers}
        for id, answers in (("blank", ["", " "]), ("three", ["red"] * 3), ("ten", ["red"] * 10))
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = []
    read_questions(Evaluation(str(models[0]), str(path), str(tmp_path / "out"), metric="vqa_evalai"), say=said.append)
    assert said == [
        "question 'blank' has no accepted answer but an empty one; only saying nothing can be right",
        "2 questions ('blank', say) have other than 10 accepted answers, of which vqa_evalai is meant; with three or "
        "fewer it is never 1",
    ]


def test_an_earlier_evaluation_is_scored_against_the_answers_that_count_by_now(models, data, tmp_path):
    first = evaluate(evaluation(models[0], data, tmp_path / "first"), say=lambda line: None)
    said = predictions(tmp_path / "first")[0]["prediction"]
    text = Path(data[0]).read_text()
    Path(data[0]).write_text(text.replace(",yes", f",{said}") if said else text.replace(",yes", ",no"))
    again = evaluate(
        evaluation(models[0], data, tmp_path / "b", baseline=str(tmp_path / "first")), say=lambda line: None
    )
    assert again["baselines"]["first"]["mean"] == again["mean"] and again["baselines"]["first"]["learned"] == 0
    assert first["mean"] != again["mean"]


def test_killed_and_restarted_gives_the_same_report(models, data, tmp_path):
    whole = evaluate(evaluation(models[0], data, tmp_path / "whole"), say=lambda line: None)
    evaluate(evaluation(models[0], data, tmp_path / "killed"), say=lambda line: None)
    path = tmp_path / "killed" / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:30])
    again = evaluate(evaluation(models[0], data, tmp_path / "killed"), say=lambda line: None)
    assert again == whole and sorted(path.read_bytes().splitlines(keepends=True)) == sorted(lines)
    assert (tmp_path / "killed" / "report.json").read_bytes() == (tmp_path / "whole" / "report.json").read_bytes()


def test_several_devices_and_processes_predict_as_one(models, data, tmp_path):
    evaluate(evaluation(models[0], data, tmp_path / "one"), say=lambda line: None)
    evaluate(evaluation(models[0], data, tmp_path / "three", devices=3), say=lambda line: None)
    assert by_id(tmp_path / "three") == by_id(tmp_path / "one")
    evaluate(evaluation(models[0], data, tmp_path / "divided", devices=4, tensor=2), say=lambda line: None)
    assert by_id(tmp_path / "divided") == by_id(tmp_path / "one")
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), f"--model={models[0]}", f"--benchmark={data[0]}"]
    command += [f"--output={tmp_path / 'several'}", "--max_new_tokens=4", "--devices=4"]
    started = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for variables in environments(2, 4)
    ]
    said = [process.communicate(timeout=250) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert by_id(tmp_path / "several") == by_id(tmp_path / "one")
    assert [one["id"] for one in predictions(tmp_path / "several")] == [f"asked-{n}" for n in range(1, 10)]
    assert ["report: " in out for out, _ in said] == [True, False]  # the first alone speaks


def by_id(folder):
    """What was said, and how sure the model was to two decimals."""
    return {one["id"]: (one["prediction"], round(one["probability"], 2)) for one in predictions(folder)}


def by_said(folder):
    return {one["id"]: one["prediction"] for one in predictions(folder)}


def test_a_teacher_answers_and_is_not_asked_twice(data, tmp_path, monkeypatch):
    from data_pipeline.teachers.local import Local

    model = "teacher:kind=local,model=vlm_jax/assets/tiny_base,rows=4"
    one = Evaluation(model, data[0], str(tmp_path / "out"), max_new_tokens=16)
    summary = evaluate(one, say=lambda line: None)
    assert summary["n"] == 9 and summary["settings"]["weights"].startswith("tiny_base ")
    assert summary["errors"] == []
    # Also where an answer is cut off: a model that is loaded is scored by what it has said until then.
    evaluate(dataclasses.replace(one, model="vlm_jax/assets/tiny_base", output=str(tmp_path / "loaded")))
    loaded, asked = (by_said(tmp_path / name) for name in ("loaded", "out"))
    assert asked == loaded and any(len(said) > 8 for said in asked.values())
    monkeypatch.setattr(Local, "_answers", None)
    (tmp_path / "out" / "predictions.jsonl").unlink()
    assert evaluate(one, say=lambda line: None) == summary


def test_a_teacher_that_nobody_reaches_ends_the_evaluation_without_a_score(data, tmp_path):
    one = evaluation("teacher:kind=openai_compatible,model=m,endpoint=http://127.0.0.1:9/v1", data, tmp_path / "out")
    with pytest.raises(InputError, match="nothing answers at http://127.0.0.1:9"):
        evaluate(one, say=lambda line: None)
    assert not (tmp_path / "out" / "report.json").exists() and predictions(tmp_path / "out") == []


def test_settings_of_a_teacher_are_read_and_refused_by_name(tmp_path, data):
    assert in_text("kind=local,model=a/b,rows=4,dtype=float32", "--model") == {
        "kind": "local",
        "model": "a/b",
        "rows": 4,
        "dtype": "float32",
    }
    for model, line in (
        ("teacher:local", "--model=teacher:local: 'local' has no value; wanted kind="),
        ("teacher:kind=local,kind=drawn", "'kind' is there twice"),
        ("teacher:kind=loca,model=x", "--model.kind is 'loca'"),
    ):
        with pytest.raises(InputError, match=line):
            evaluate(evaluation(model, data, tmp_path / "out"), say=lambda line: None)
    with pytest.raises(InputError, match="--devices=99: there are 8 here"):
        evaluate(evaluation("vlm_jax/assets/tiny_base", data, tmp_path / "out", devices=99), say=lambda line: None)
    with pytest.raises(InputError, match="--tensor=3: wanted 1 or more, and --devices=4 a multiple of it"):
        evaluate(evaluation("m", data, tmp_path / "out", devices=4, tensor=3), say=lambda line: None)
    with pytest.raises(InputError, match="--general"):
        evaluate(evaluation("m", data, tmp_path / "out", general=f"{data[1]},{data[1]}"), say=lambda line: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_transformers_says_the_same_token_for_token(models, data, tmp_path, family):
    folder = models[0]
    if family == "qwen3_vl":
        folder = tmp_path / "model"
        save_tiny(folder, family=family, layers=2, depth=2, global_blocks=(0, 1), max_visual_tokens=16)
    ours = evaluate(evaluation(folder, data, tmp_path / "ours"), say=lambda line: None)
    theirs = evaluate(evaluation(folder, data, tmp_path / "theirs", backend="transformers"), say=lambda line: None)
    assert theirs["settings"]["backend"] == "transformers" and theirs["mean"] == ours["mean"]
    said = [{one["id"]: (one["prediction"], one["tokens"]) for one in predictions(tmp_path / name)} for name in OURS]
    assert said[0] == said[1]
    for model, settings, line in (
        (models[0], {"devices": 2}, "--devices does not go with --backend=transformers"),
        ("nowhere", {}, "nowhere: is no folder"),
    ):
        with pytest.raises(InputError, match=line):
            other = evaluation(model, data, tmp_path / "other", backend="transformers", **settings)
            evaluate(other, say=lambda line: None)


OURS = ("ours", "theirs")

"""scripts/evaluate.py on a records file, twice, and on bad input."""

import json
import sys
from pathlib import Path

import pytest

from tests.started import environment, run
from tests.tiny_models import PHOTOS, save_tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)
    return folder


def evaluate(model, benchmark, output, *more):
    flags = [f"--model={model}", f"--benchmark={benchmark}", f"--output={output}", "--max_new_tokens=4", *more]
    return run([sys.executable, ROOT / "scripts" / "evaluate.py", *flags], env=environment())


def test_an_evaluation_writes_predictions_and_reports_and_twice_changes_nothing(model, tmp_path):
    output = tmp_path / "out"
    first = evaluate(model, PHOTOS / "photos.json", output)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    assert "normalised" in first.stdout and "40" in first.stdout
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 40  # 39 conversations, one of them of two turns
    assert {"id", "question", "prediction", "answers", "score", "metric"} <= set(lines[0])
    summary = json.loads((output / "report.json").read_text())
    assert summary["n"] == 40 and summary["settings"]["max_new_tokens"] == 4
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    second = evaluate(model, PHOTOS / "photos.json", output, f"--baseline={output}")
    assert second.returncode == 0, second.stderr
    assert "learned 0, lost 0" in second.stdout
    assert (output / "predictions.jsonl").read_bytes() == before["predictions.jsonl"]


def test_unreadable_images_count_as_wrong_and_are_listed(model, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(f"image,question,answer\nnowhere.png,What?,A cat\n{PHOTOS / 'coffee.jpg'},What?,Coffee\n")
    done = evaluate(model, table, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 could not be asked and count as wrong (" in done.stdout and "nowhere.png: no such image" in done.stdout
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["n"] == 2 and "nowhere.png" in summary["errors"][0]["error"]


def test_errors_of_the_records_and_a_wrong_metric_are_told(model, tmp_path):
    records = tmp_path / "r.jsonl"
    line = json.dumps({"id": "a", "messages": [{"role": "user", "content": "Hi"}], "answers": ["Hello"]})
    records.write_text(f"{line}\n{line}\n")
    done = evaluate(model, records, tmp_path / "out")
    assert done.returncode == 1 and "'a'" in done.stderr and len(done.stderr.splitlines()) == 1
    done = evaluate(model, records, tmp_path / "out", "--metric=bleu")
    assert done.returncode == 1 and done.stderr.startswith("error: --metric=bleu: there are exact, ")


def test_several_files_and_other_images(model, tmp_path):
    two = f"{PHOTOS / 'photos.json'},{PHOTOS / 'same_question.json'}"
    done = evaluate(model, two, tmp_path / "out", "--images=blank")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["images"] == "blank"
    # Answers of other images or other weights are not gone on with.
    again = evaluate(model, two, tmp_path / "out")
    assert again.returncode == 1 and "holds an evaluation with another images" in again.stderr
    doubled = evaluate(model, f"{PHOTOS / 'photos.json'},{PHOTOS / 'photos.json'}", tmp_path / "new")
    assert doubled.returncode == 1 and "photos.json: is named 2 times in --benchmark" in doubled.stderr
    unknown = evaluate(model, two, tmp_path / "new", "--images=none", "--metric=bleu")
    assert unknown.returncode == 1 and len(unknown.stderr.splitlines()) == 2


def test_a_folder_of_other_files_and_another_baseline_are_refused(model, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(f"image,question,answer\n{PHOTOS / 'coffee.jpg'},What?,Coffee\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    done = evaluate(model, table, tmp_path / "mine")
    assert done.returncode == 1 and "holds files that are not an evaluation's" in done.stderr
    assert (tmp_path / "mine" / "report.html").read_text() == "mine"
    line = {"id": "x", "question": "?", "prediction": "", "answers": ["a"], "score": 0, "metric": "exact", "groups": {}}
    (tmp_path / "mine" / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    done = evaluate(model, table, tmp_path / "out", f"--baseline={tmp_path / 'mine'}")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "answered none of these questions" in done.stderr


def test_questions_that_would_share_a_name_and_answers_in_parts(model, tmp_path):
    def record(id, *turns):
        messages = [{"role": role, "content": content} for role, content in turns]
        return json.dumps({"id": id, "messages": messages})

    parts = [{"type": "text", "text": "red"}]
    two = record("r", ("user", "A?"), ("assistant", "a"), ("user", "B?"), ("assistant", "b"))
    records = tmp_path / "r.jsonl"
    records.write_text(two + "\n" + record("r#1", ("user", "C?"), ("assistant", "c")) + "\n")
    done = evaluate(model, records, tmp_path / "out")
    assert done.returncode == 1 and "two questions would be called 'r#1'" in done.stderr
    records.write_text(record("p", ("user", "Colour?"), ("assistant", parts)) + "\n")
    done = evaluate(model, records, tmp_path / "parts")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "parts" / "predictions.jsonl").read_text())["answers"] == ["red"]


def test_a_second_metric_over_the_same_answers_asks_nothing_again(model, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(f"image,question,answer\n{PHOTOS / 'coffee.jpg'},What?,Coffee\n{PHOTOS / 'temple.jpg'},What?,A\n")
    first = evaluate(model, table, tmp_path / "out", "--metric=exact")
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith(f"report: {tmp_path / 'out' / 'report.html'}\n")
    # What was said is replaced, so that an answer that were asked for again would show.
    path = tmp_path / "out" / "predictions.jsonl"
    lines = [{**json.loads(line), "prediction": "the coffee", "score": 0.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    second = evaluate(model, table, tmp_path / "out", "--metric=contains", f"--baseline={tmp_path / 'out'}")
    assert second.returncode == 0, second.stderr
    summary = json.loads((tmp_path / "out" / "report.json").read_text())
    assert summary["settings"]["metric"] == "contains" and summary["mean"] > 0
    newest = {one["id"]: one for one in map(json.loads, path.read_text().splitlines())}
    assert {one["prediction"] for one in newest.values()} == {"the coffee"}
    assert {one["metric"] for one in newest.values()} == {"contains"}

"""scripts/evaluate.py --benchmark=NAME with a real, tiny model: flags, report, and what is handed in."""

import json
import sys
from pathlib import Path

from tests.data_pipeline import official_files
from tests.started import environment, run

ROOT = Path(__file__).resolve().parents[2]


def test_a_benchmark_by_its_name_with_flags_before_its_entry(base, tmp_path):
    case, output = official_files.textvqa(tmp_path), tmp_path / "out"
    flags = [f"--model={base}", "--benchmark=textvqa", f"--data={case.data}", f"--output={output}", "--metric=exact"]
    flags += ["--suffix=\\nBriefly.", "--visual_tokens=recommended", "--max_new_tokens=2"]
    done = run([sys.executable, ROOT / "scripts" / "evaluate.py", *flags], env=environment())
    assert done.returncode == 0, done.stderr
    assert "2 questions of the 5,000 of the split val" in done.stdout and "to hand in: submission.json" in done.stdout
    settings = json.loads((output / "settings.json").read_text())
    assert settings == json.loads((output / "report.json").read_text())["settings"]
    assert {name: settings[name] for name in ("benchmark", "data", "format", "template", "suffix", "metric")} == {
        "benchmark": "textvqa",
        "data": case.data,
        "format": "textvqa",
        "template": "",
        "suffix": "\nBriefly.",
        "metric": "exact",
    }
    assert (settings["visual_tokens"], settings["max_new_tokens"]) == ([256, 2048], 2)
    handed_in = json.loads((output / "submission.json").read_text())
    said = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [entry["question_id"] for entry in handed_in] == [34602, 34603]
    assert [entry["answer"] for entry in handed_in] == [line["prediction"] for line in said]
    assert [line["question"] for line in said] == ["what brand is this?", "who wrote it?"]

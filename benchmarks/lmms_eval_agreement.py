r"""The real lmms-eval on a model that this package serves: the same answers, and the same scores by four metrics.

    .venv/bin/python benchmarks/lmms_eval_agreement.py                      # 120 questions, the shipped base
    .venv/bin/python benchmarks/lmms_eval_agreement.py --model=runs/quickstart/hf --environment=runs/lmms_eval

Installs lmms-eval in an environment of its own (--environment, kept), serves the model on this machine, and asks it the
built-in corpus's held-out questions twice: by lmms-eval through its OpenAI client, and by `scripts/evaluate.py`. Scores
are lmms-eval's own functions: ANLS, ChartQA's relaxed correctness, exact match and TextVQA's VQA accuracy. Accepted
answers are made to tell the metrics apart: with other spellings, numbers and votes. What differs is printed, and the
exit status is then 1. No network is needed but to install packages.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends import conversations
from vlm_jax.evaluation import metrics

ROOT = Path(__file__).resolve().parents[1]
TASK = "vlm_jax_agreement"
METRICS = {"anls": "anls_lmms", "relaxed": "relaxed_accuracy", "exact": "exact", "vqa": "vqa_evalai"}
"""lmms-eval's function by our metric's name."""
PACKAGES = ("lmms-eval==0.7.3", "filelock<4", "openai")

TASK_FILE = """
task: {task}
dataset_path: {data}
dataset_kwargs:
  load_from_disk: true
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: !function utils.text
doc_to_target: answer
process_results: !function utils.results
generation_kwargs:
  max_new_tokens: {tokens}
  temperature: 0
metric_list:
{metrics}
"""
TASK_UTILS = """
from lmms_eval.api.metrics import anls, exact_match_hf_evaluate
from lmms_eval.tasks.chartqa.utils import relaxed_correctness
from lmms_eval.tasks.textvqa.utils import textvqa_process_results


def visual(doc):
    return [doc["image"].convert("RGB")]


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]


def results(doc, results):
    said = results[0]
    votes = {"answers": list(doc["votes"]), "question_id": doc["id"]}
    return {
        "anls": anls([doc["answer"], *doc["also"]], [said])["anls"],
        "relaxed": float(relaxed_correctness(said, doc["answer"])),
        "exact": float(exact_match_hf_evaluate([said], [doc["answer"]])["exact_match"]),
        "vqa": textvqa_process_results(votes, [said])["exact_match"],
    }
"""
SAVE = """
import json, sys
from datasets import Dataset, DatasetDict, Features, Image, Sequence, Value
rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
text = Value("string")
features = Features({"id": text, "image": Image(), "question": text, "answer": text,
                     "also": Sequence(text), "votes": Sequence(text)})
DatasetDict({"test": Dataset.from_list(rows, features=features)}).save_to_disk(sys.argv[2])
"""


def rows(folder: Path, count: int) -> list[dict[str, Any]]:
    """Questions with an image, and what is accepted: as one answer, beside it, and as ten people's."""
    found = []
    for number, (turn, *_) in enumerate(conversations(folder, count, text_only=False)):
        image, words = (part.get("image") or part["text"] for part in turn["content"])
        answer = turn["answer"]
        found.append(
            {
                "id": f"q{number}",
                "image": image,
                "question": words,
                "answer": answer,
                "also": [answer.upper() + "."],
                "votes": [answer] * (number % 11) + [f"the {answer}", "no answer"] * 5,
            }
        )
        found[-1]["votes"] = found[-1]["votes"][:10]
    return found


def installed(environment: Path) -> Path:
    """The Python of an environment with lmms-eval, made where it is not there."""
    python = environment / "bin" / "python"
    if not (environment / "done").is_file():
        shutil.rmtree(environment, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        # Beside a CPU build of torch the registry's torchvision fails at import.
        subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", "torchvision"], check=True)
        (environment / "done").write_text("")
    return python


def by_lmms_eval(python: Path, model: str, address: str, asked: Sequence[dict], folder: Path, tokens: int) -> dict:
    """{id: (answer, {metric: score})} as lmms-eval writes them down."""
    task = folder / "task"
    task.mkdir()
    data, table = folder / "data", folder / "rows.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in asked), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    subprocess.run([str(python), "-c", SAVE, str(table), str(data)], check=True, env=environment)
    listed = "\n".join(f"  - metric: {name}\n    aggregation: mean\n    higher_is_better: true" for name in METRICS)
    (task / f"{TASK}.yaml").write_text(TASK_FILE.format(task=TASK, data=data, tokens=tokens, metrics=listed))
    (task / "utils.py").write_text(TASK_UTILS)
    arguments = f"model_version={model},base_url={address},api_key=none"
    command = [str(python), "-m", "lmms_eval", "--model", "openai", "--model_args", arguments, "--tasks", TASK]
    command += ["--include_path", str(task), "--batch_size", "1", "--log_samples", "--output_path", str(folder / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    samples = sorted((folder / "out").rglob("*samples*.jsonl"))
    if done.returncode or not samples:
        raise SystemExit(f"lmms-eval failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = {}
    for line in samples[-1].read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        said = one["filtered_resps"]
        said = said[0] if isinstance(said, list) else said
        found[asked[one["doc_id"]]["id"]] = (said, {name: float(one[name]) for name in METRICS})
    return found


def by_us(model: str, asked: Sequence[dict], folder: Path, tokens: int) -> dict:
    """{id: (answer, {metric: score})} of scripts/evaluate.py, whose answers are scored by each metric."""
    records = folder / "records.jsonl"
    lines = []
    for row in asked:
        content = [{"type": "image", "image": row["image"]}, {"type": "text", "text": row["question"]}]
        record = {"id": row["id"], "messages": [{"role": "user", "content": content}], "answers": [row["answer"]]}
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    records.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), f"--model={model}", f"--benchmark={records}"]
    command += [f"--output={folder / 'ours'}", f"--max_new_tokens={tokens}", "--metric=exact"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    said = {}
    for line in (folder / "ours" / "predictions.jsonl").read_text(encoding="utf-8").splitlines():
        one = json.loads(line)
        said[one["id"]] = one["prediction"]
    accepted = {
        "anls": lambda row: [row["answer"], *row["also"]],
        "relaxed": lambda row: [row["answer"]],
        "exact": lambda row: [row["answer"]],
        "vqa": lambda row: row["votes"],
    }
    return {
        row["id"]: (
            said[row["id"]],
            {name: metrics.score(ours, said[row["id"]], accepted[name](row)) for name, ours in METRICS.items()},
        )
        for row in asked
    }


def serving(model: str, port: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts" / "serve.py"), f"--model={model}", f"--port={port}", "--name=model"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.2)
    raise SystemExit(f"the server did not start: {server.stdout.read() if server.stdout else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__.split("\n\n")[0]))
    base = ROOT / "vlm_jax" / "assets" / "tiny_base"
    parser.add_argument("--model", default=str(base), help="a folder (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=120, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer at most (default: %(default)s)")
    parser.add_argument("--environment", type=Path, default=ROOT / "runs" / "lmms_eval", help="(default: %(default)s)")
    options = parser.parse_args()
    python = installed(options.environment.absolute())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = rows(folder / "objects", options.questions)
        server = serving(options.model, port)
        try:
            theirs = by_lmms_eval(python, "model", f"http://127.0.0.1:{port}/v1", asked, folder, options.tokens)
        finally:
            server.terminate()
            server.wait(30)
        ours = by_us(options.model, asked, folder, options.tokens)
    answers = sum(theirs[one][0] == ours[one][0] for one in ours)
    print(f"{answers} of {len(ours)} answers equal")
    sound = answers == len(ours)
    for name in METRICS:
        differing = [one for one in ours if abs(theirs[one][1][name] - ours[one][1][name]) > 1e-9]
        means = [sum(side[one][1][name] for one in ours) / len(ours) for side in (theirs, ours)]
        print(f"{METRICS[name]:17} lmms-eval {means[0]:.4f}, here {means[1]:.4f}, {len(differing)} questions differ")
        for one in differing[:5]:
            print(f"  {one}: said {ours[one][0]!r}, {theirs[one][1][name]} there and {ours[one][1][name]} here")
        sound &= not differing
    if not sound:
        sys.exit(1)


if __name__ == "__main__":
    main()

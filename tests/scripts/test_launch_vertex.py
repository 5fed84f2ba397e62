"""launch_vertex.py as a person starts it: what --dry_run prints is what is sent, and nothing leaves before that."""

import json
import re
import subprocess
import sys

import pytest

from tests.data_pipeline.launching.vertex_server import VertexServer
from tests.started import ROOT, environment, run

SCRIPTS = ROOT / "scripts"
ASKED = (
    "--config=configs/qwen2_5_vl_3b_lora.py",
    "--machine=v6e-8",
    "--project=my-project",
    "--workdir=gs://bkt/runs/lora",
    "--config.data.path=gs://bkt/train.jsonl",
    "--config.batch.rows=8",
)


def started(*words, **more):
    command = [sys.executable, ROOT / "scripts" / "launch_vertex.py", *words]
    return run(command, env=environment(**more), cwd=ROOT)


def test_the_dry_run_prints_what_is_sent_and_sends_nothing():
    pytest.importorskip("google.cloud.aiplatform_v1")
    from google.cloud.aiplatform_v1 import CustomJob

    with VertexServer() as server:
        words = [*ASKED, "--spot", "--labels=run=7", "--env=A=b", f"--endpoint={server.url}"]
        printed = started(*words, "--dry_run", MY_API_TOKEN="hf_" + "a" * 30)
        assert printed.returncode == 0, printed.stderr
        assert server.calls == []
        assert "hf_" not in printed.stdout + printed.stderr
        sent = started(*words)
        assert (sent.returncode, sent.stderr) == (0, "")  # Google's client says nothing of its own
        ((path, _, body),) = server.calls
    assert f"not sent: POST {server.url}{path.partition('?')[0]}\n" == printed.stderr
    assert CustomJob.from_json(printed.stdout) == CustomJob.from_json(json.dumps(body))
    name, page, log = sent.stdout.splitlines()
    assert name == "projects/my-project/locations/us-central1/customJobs/1"
    assert page.startswith("https://console.cloud.google.com/") and log.endswith(name)


def test_another_program_is_given_its_own_flags_and_the_launcher_keeps_its_own():
    words = ["--script=evaluate", "--machine=l4-1", "--model=gs://bkt/run", "--benchmark=gs://bkt/q.jsonl"]
    done = started(*words, "--output=gs://bkt/report", "--images=blank", "--dry_run", "--project=my-project")
    assert done.returncode == 0, done.stderr
    container = json.loads(done.stdout)["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    assert container["command"] == ["python", "scripts/evaluate.py"]
    wanted = ["--benchmark=gs://bkt/q.jsonl", "--images=blank", "--model=/gcs/bkt/run", "--output=/gcs/bkt/report"]
    assert container["args"] == wanted
    corpus = ["--script=generate_corpus", "--config=configs/corpus/thai_culture.py", "--output=gs://bkt/thai"]
    done = started(*corpus, "--machine=l4-1", "--max_cost=3", "--dry_run")
    container = json.loads(done.stdout)["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]
    wanted = ["--config=configs/corpus/thai_culture.py", "--max_cost=3.0", "--output=/gcs/bkt/thai"]
    assert container["args"] == wanted


@pytest.mark.parametrize(
    ("words", "status", "lines"),
    [
        (("--script=chat", "--machine=l4-1"), 1, ["error: --script=chat: waits for a person to type"]),
        (("--script=evalute", "--machine=l4-1"), 1, ["error: --script=evalute: no such program; did you mean"]),
        (("--script=evaluate", "--machine=l4-1"), 2, ["error: missing --model, --benchmark, --output"]),
        (("--config=configs/photos.py",), 2, ["error: missing --machine"]),
        ((*ASKED, "--modle=x"), 2, ["error: --modle: no such flag"]),
        ((*ASKED, "--config.batch.row=8"), 1, ["error: --config.batch.row: no such setting"]),
        ((*ASKED, "--endpoint=http://example.com"), 1, ["error: --endpoint=http://example.com: credentials"]),
        ((*ASKED, "--workdir=runs/x", "--machine=v5e"), 1, ["error: --machine=v5e: no such", "error: --workdir"]),
        (("--config=tests/data/x.py", "--machine=l4-1"), 1, ["error: tests/data/x.py: no such config file"]),
        (("--config=configs/photos.py", "--machine=l4-1"), 1, ["error: --project is open", "error: --workdir is open"]),
    ],
)
def test_what_is_wrong_is_told_in_a_line_each(words, status, lines):
    done = started(*words)
    assert done.returncode == status and done.stdout == ""
    told = done.stderr.splitlines()
    assert all(line.startswith("error: ") for line in told)
    assert [told[n].startswith(line) for n, line in enumerate(lines)] == [True] * len(lines), done.stderr


def test_the_launchers_flags_are_no_programs_own():
    """One name cannot be both: the program would not load."""
    defined = {path.stem: re.findall(r'DEFINE_\w+\(\s*"(\w+)"', path.read_text()) for path in SCRIPTS.glob("*.py")}
    own = set(defined.pop("launch_flags")) - {"dry_run"}
    attended = ("launch_vertex", "passed_on", "chat", "serve", "quickstart", "review_corpus")
    others = {name: sorted(own & set(flags)) for name, flags in defined.items() if name not in attended}
    assert "machine" in own and "image" in defined["show_tokens"]
    assert {name: flags for name, flags in others.items() if flags} == {}


def test_a_config_outside_the_image_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text((ROOT / "configs" / "photos.py").read_text())
    done = started(f"--config={tmp_path}/mine.py", "--machine=l4-1", "--dry_run")
    assert done.returncode == 1 and "is not in configs/, which is what the image holds" in done.stderr


def test_it_starts_by_itself_and_without_googles_client():
    code = (
        "import runpy, sys; sys.modules['google.cloud'] = None; sys.path.insert(0, 'scripts'); del sys.argv[0]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, "scripts/launch_vertex.py", "--config=configs/photos.py", "--machine=v5e-1"]
    done = subprocess.run([*command, "--dry_run"], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["displayName"] == "photos-v5e-1"

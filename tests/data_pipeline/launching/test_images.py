"""The images of launch/: their Dockerfiles keep hadolint's rules, and install what `make setup` would."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.dockerfile_installs import FILES, installs, instructions
from data_pipeline.launching.settings_of_job import IMAGE_FOLDERS
from tests.started import ROOT

KINDS = sorted(FILES)
TEXTS = {kind: path.read_text("utf-8") for kind, path in FILES.items()}


def hadolint(path: Path) -> str:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program, "the test extra brings hadolint: make test"
    return subprocess.run([program, "--no-color", str(path)], capture_output=True, text=True).stdout


@pytest.mark.parametrize("kind", KINDS)
def test_a_dockerfile_keeps_the_rules_of_hadolint(kind):
    assert hadolint(FILES[kind]) == ""


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [("python:3.11.14-slim-bookworm", "python", "DL3006"), ("USER ${RUN_AS}", "USER root", "DL3002")]
    + [("COPY scripts", "ADD scripts", "DL3020"), ('ENTRYPOINT ["python"]', "ENTRYPOINT python", "DL3025")],
)
def test_a_broken_rule_is_found(tmp_path, old, new, rule):
    assert old in TEXTS["tpu"]
    (tmp_path / "Dockerfile").write_text(TEXTS["tpu"].replace(old, new))
    assert rule in hadolint(tmp_path / "Dockerfile")


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_installs_what_make_setup_does_and_the_store_besides(kind):
    """The two commands of the Makefile, for the image's environment: not editable, and with the extra gs."""
    made = subprocess.run(["make", "-n", "-W", "setup.py", "setup", f"ACCEL={kind}"], cwd=ROOT, capture_output=True)
    wanted = [re.sub(r" -q| -e|--disable-pip-version-check ", "", line) for line in made.stdout.decode().splitlines()]
    wanted = [line.replace(".venv/", "/opt/venv/") for line in wanted if "pip install" in line]
    wanted[1] = wanted[1].replace(f'".[{kind}]"', f'".[{kind},gs]"')
    (ours,) = installs(TEXTS[kind])
    assert ours.split(" && ") == [
        "python -m venv /opt/venv",
        *(line.replace("pip install", "pip install --no-cache-dir") for line in wanted),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_holds_the_code_and_nothing_else_and_runs_as_nobody_special(kind):
    steps = instructions(TEXTS[kind])
    copied = [word for name, rest in steps if name == "COPY" for word in rest.split()[:-1]]
    assert sorted(copied) == sorted([*IMAGE_FOLDERS, "LICENSE", "constraints.txt", "pyproject.toml", "setup.py"])
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert shown == set(copied)
    assert ("ARG", "RUN_AS=trainer") in steps and steps[-3] == ("USER", "${RUN_AS}")
    program, *_ = json.loads(dict(steps)["CMD"])
    assert (ROOT / program).is_file() and dict(steps)["WORKDIR"] == "/vlm-jax"
    assert not re.search(r"token|secret|password|key", TEXTS[kind], re.IGNORECASE)


def test_the_images_differ_in_their_accelerator_alone():
    texts = {kind: [line for line in instructions(text) if line[0] != "ENV"] for kind, text in TEXTS.items()}
    assert [(name, rest.replace("tpu", "cuda")) for name, rest in texts["tpu"]] == texts["cuda"]

"""Runs the install steps of launch/Dockerfile.tpu and Dockerfile.cuda in environments of their own, without Docker.

    .venv/bin/python benchmarks/dockerfile_installs.py --output=runs/dockerfile_installs

The instructions are read from the files: what is copied by then lies in an empty folder, RUN lines that install are run
there by a shell without this one's environment, and then the image's own program is. Told of each: seconds, size,
whether all versions are those of constraints.txt, and an answer of the tiny model that comes with the package, on the
CPU. Minutes and some gigabytes, most of them NVIDIA's. What only Docker can do (users, base images) is passed over, and
named. The Python is this one's, not the base image's.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = {"tpu": ROOT / "launch" / "Dockerfile.tpu", "cuda": ROOT / "launch" / "Dockerfile.cuda"}
VENV = "/opt/venv"
ANSWER = """
import vlm_jax
model = vlm_jax.load("vlm_jax/assets/tiny_base")
print(model.generate([{"role": "user", "content": "What is it?"}], max_new_tokens=4))
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, its arguments as one line) of a Dockerfile, in order."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = (line.strip().partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


def installs(text: str, venv: str = VENV) -> list[str]:
    """The RUN lines of a Dockerfile that install, with its ARG defaults, for an environment at `venv`."""
    defaults = dict(rest.split("=", 1) for name, rest in instructions(text) if name == "ARG")
    lines = [rest for name, rest in instructions(text) if name == "RUN" and "pip install" in rest]
    for key, value in defaults.items():
        lines = [line.replace(f"${{{key}}}", value) for line in lines]
    return [line.replace(VENV, venv) for line in lines]


def copied(arguments: str) -> Iterator[Path]:
    """The tracked files that a COPY instruction takes, relative to the repository."""
    for source in arguments.split()[:-1]:
        listed = subprocess.run(["git", "ls-files", "--", source], cwd=ROOT, capture_output=True, text=True, check=True)
        yield from (Path(line) for line in listed.stdout.splitlines())


def run(kind: str, folder: Path) -> dict:
    """Builds what one Dockerfile describes in `folder`; the figures of it."""
    text, venv, context = FILES[kind].read_text("utf-8"), folder / "venv", folder / "vlm-jax"
    context.mkdir(parents=True)
    clean = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(context)}
    clean |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    todo, seconds, skipped = installs(text, str(venv)), 0.0, []
    for name, rest in instructions(text):
        if name == "COPY":
            for path in copied(rest):
                (context / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, context / path)
        elif name == "RUN" and "pip install" in rest:
            begun = time.perf_counter()
            subprocess.run(["bash", "-euc", todo.pop(0)], cwd=context, env=clean, check=True, stdout=sys.stderr)
            seconds += time.perf_counter() - begun
        elif name not in ("ARG", "ENV", "ENTRYPOINT", "CMD", "WORKDIR"):
            skipped.append(f"{name} {rest}")
    (command,) = (json.loads(rest) for name, rest in instructions(text) if name == "CMD")
    python = [str(venv / "bin" / "python")]
    outcome = {
        name: subprocess.run([*python, *words], cwd=context, env={**clean, **extra}, capture_output=True, text=True)
        for name, words, extra in (
            ("program", command, {}),
            ("pip check", ["-m", "pip", "check"], {}),
            ("answer", ["-c", ANSWER], {"JAX_PLATFORMS": "cpu"}),
        )
    }
    for name, done in outcome.items():
        if done.returncode:
            sys.exit(f"Dockerfile.{kind}: {name} fails:\n{done.stdout}{done.stderr}")
    return {
        "file": f"Dockerfile.{kind}",
        "seconds": round(seconds),
        "gigabytes": round(sum(path.lstat().st_size for path in venv.rglob("*") if path.is_file()) / 1e9, 2),
        "other versions": other_versions(python[0]),
        "answer": outcome["answer"].stdout.strip(),
        "passed over": skipped,
    }


def other_versions(python: str) -> list[str]:
    """Installed packages that constraints.txt pins to another version than the one that is there."""
    pins = dict(re.findall(r"^([\w.-]+)==([^;\s]+)", (ROOT / "constraints.txt").read_text("utf-8"), re.M))
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    command = [python, "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    versions = {entry["name"].lower().replace("_", "-"): entry["version"] for entry in found}
    return [f"{name}=={version}" for name, version in versions.items() if pins.get(name, version) != version]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of results.jsonl")
    parser.add_argument("--file", choices=sorted(FILES), action="append", help="one of the files; both unless given")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for kind in options.file or FILES:
        with tempfile.TemporaryDirectory() as folder:
            figures = run(kind, Path(folder))
        print(json.dumps(figures))
        with open(options.output / "results.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

"""Commands as README and docs print them begin with something that runs, and their flags and settings are known."""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # where programs find the modules beside them

from command_line import load_config, split_overrides  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "vlm_jax/assets/tiny_base/README.md"]
PAGES = [page for page in PAGES if page.name != "experiments.md"]  # which keeps what was run at its time
PROGRAMS = sorted((ROOT / "scripts").glob("*.py"))


def commands(text: str) -> list[str]:
    """Lines of code, and cells of tables, that start a program of scripts/ with flags."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(\S.*)$", text, re.M)
    cells = re.findall(r"^\| `([^`]*)`", text, re.M)
    started = re.compile(r"(?:[A-Z_]+=\S+ )*(?:[\w./]*python3? )?[\w./]*scripts/\w+\.py\s+--")
    return [line for line in [*lines, *cells] if started.match(line)]


FOUND = [(page, command) for page in [*PAGES, *PROGRAMS] for command in commands(page.read_text("utf-8"))]


def flags_of(program: Path) -> set[str]:
    """Names of the flags that a program and the programs it imports define."""
    tree, names = ast.parse(program.read_text("utf-8")), {"help", "debug"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.startswith("flags.DEFINE_"):
                names |= {node.args[0].value, f"no{node.args[0].value}"}
            if called == "command_line.run" and any(keyword.arg == "config" for keyword in node.keywords):
                names.add("config")
        if isinstance(node, ast.Import):
            beside = [program.with_name(f"{alias.name}.py") for alias in node.names]
            names = names.union(*(flags_of(path) for path in beside if path.is_file()))
    return names


def test_commands_are_found():
    assert len(FOUND) > 30 and len({page for page, _ in FOUND}) > 10


@pytest.mark.parametrize(("page", "command"), FOUND, ids=lambda value: getattr(value, "name", value))
def test_a_printed_command_runs_as_it_stands(page, command):
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    assert words[0] == ".venv/bin/python", f"{page.name}: {command}: names no interpreter"
    program = ROOT / words[1]
    overrides, rest = split_overrides(words[2:])
    names = [word.lstrip("-").partition("=")[0] for word in rest if word.startswith("--")]
    known = flags_of(program)
    if program.name == "launch_vertex.py":  # which takes the flags of the program that it starts
        (started,) = [word.partition("=")[2] for word in rest if word.startswith("--script=")] or ["train"]
        known |= flags_of(program.with_name(f"{started}.py"))
    assert set(names) <= known
    configs = [word.partition("=")[2] for word in rest if word.startswith("--config=")]
    if configs and configs[0] != "…":
        load_config(str(ROOT / configs[0]), overrides)

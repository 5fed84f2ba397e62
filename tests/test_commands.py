"""Commands as README and docs print them begin with something that runs, and their flags and settings are known.

What needs an account, a cluster or a GPU stands in a section that says that nobody ran it here.
"""

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
import streamlit

from page_options import read_options

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # where programs find the modules beside them

from command_line import load_config, split_overrides  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "vlm_jax/assets/tiny_base/README.md"]
PAGES = [page for page in PAGES if page.name != "experiments.md"]  # which keeps what was run at its time
PROGRAMS = sorted((ROOT / "scripts").glob("*.py"))


def commands(text: str, program: str = "scripts") -> list[str]:
    """Lines of code, cells of tables, and what is run on other hosts, that start a program of a folder with flags."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(\S.*)$", text, re.M)
    cells = re.findall(r"^\| `([^`]*)`", text, re.M)
    elsewhere = [part.strip() for line in re.findall(r' --command="([^"]*)"', text) for part in line.split("&&")]
    started = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:[\w./]*python3? )?[\w./]*{program}/\w+\.py\s+--")
    return [line for line in [*lines, *cells, *elsewhere] if started.match(line)]


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


BENCHMARKS = [(page, command) for page in PAGES for command in commands(page.read_text("utf-8"), "benchmarks")]


def arguments_of(program: Path) -> set[str]:
    """Names of the arguments that a benchmark and the modules beside it that it imports define."""
    text = program.read_text("utf-8")
    beside = {program.with_name(f"{name}.py") for name in re.findall(r"^(?:import|from) (\w+)", text, re.M)}
    texts = [text, *(path.read_text("utf-8") for path in beside if path.is_file())]
    return {name for one in texts for name in re.findall(r'add_argument\(\s*"--(\w+)"', one)}


@pytest.mark.parametrize(("page", "command"), BENCHMARKS, ids=lambda value: getattr(value, "name", value))
def test_a_printed_benchmark_is_there_and_knows_its_arguments(page, command):
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    assert words[0] == ".venv/bin/python", f"{page.name}: {command}: names no interpreter"
    names = {word.lstrip("-").partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert names <= arguments_of(ROOT / words[1])


OTHERS = ("apt", "docker", "gcloud", "hf", "kubectl", "nvidia-smi", "pip", "sbatch", "srun", "sudo", "vllm")
"""Programs of others, which want an account, a cluster, a GPU, or a network."""
NOT_RUN = re.compile(r"not run here|no test runs|not verified", re.I)


def sections(text: str) -> list[str]:
    return re.split(r"^#+ ", text, flags=re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_section_with_programs_of_others_says_that_they_were_not_run(page):
    line = re.compile(rf"^(?:    )?(?:[A-Z_]+=\S+ )*(?:{'|'.join(OTHERS)}) .*", re.M)
    unmarked = [
        found[0]
        for part in sections(page.read_text("utf-8"))
        if (found := line.search(part)) and not NOT_RUN.search(part)
    ]
    assert unmarked == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_of_make_and_extras_exist(page):
    text, makefile = page.read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z_-]+):", makefile, re.M))
    lines = re.findall(r"^(?:    )?make [a-z].*$|`make [a-z][^`]*`", text, re.M)
    assert {name for line in lines for name in re.findall(r"make ([a-z_-]+)", line)} <= targets
    extras = set(re.findall(r'^    "(\w+)": [\[A-Z]', (ROOT / "setup.py").read_text("utf-8"), re.M))
    asked = re.findall(r"(?:vlm-jax|\.)\[([\w,]+)\]", text)
    assert {name for group in asked for name in group.split(",")} <= extras


PAGE = re.compile(r"(?:^    |^\| `)(\S*streamlit run app/chat\.py[^`\n]*)", re.M)
PAGES_STARTED = [(page, line) for page in PAGES for line in PAGE.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "command"), PAGES_STARTED, ids=lambda value: getattr(value, "name", value))
def test_a_printed_command_of_the_chat_page_has_flags_that_it_knows(page, command):
    words = shlex.split(command, comments=True)
    assert words[:3] == [".venv/bin/streamlit", "run", "app/chat.py"]
    end = words.index("--")
    read_options(words[end + 1 :])
    for flag in words[3:end]:
        streamlit.config.get_option(flag.removeprefix("--").partition("=")[0])


def test_commands_of_the_chat_page_are_found():
    assert len(PAGES_STARTED) >= 4

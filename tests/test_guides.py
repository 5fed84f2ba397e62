"""The guides of docs/ stay true: messages are in the source, settings exist, links lead somewhere, manifests parse."""

import ast
import functools
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from data_pipeline import sources
from tests.started import environment, run
from tests.tiny_models import PHOTOS
from vlm_jax.errors import gathered
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.training.config import check_config, default_config

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # where programs find the modules beside them

from command_line import load_config, split_overrides  # noqa: E402

DOCS = ROOT / "docs"
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
GAP = "\0"
"""What stands for a value in the text of a message."""


def text_of(node: ast.expr) -> str | None:
    """The text of an expression, its values as GAP; None of what is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = text_of(node.left), text_of(node.right)
        return None if sides == (None, None) else "".join(side or GAP for side in sides)
    return None


def texts(source: str) -> Iterator[str]:
    """Every text that a program may put together."""
    for node in ast.walk(ast.parse(source)):
        if (text := text_of(node) if isinstance(node, ast.expr) else None) is not None:
            yield text


@functools.cache
def messages() -> set[str]:
    files = [path for folder in ("vlm_jax", "data_pipeline", "scripts") for path in (ROOT / folder).rglob("*.py")]
    found = {text for path in files for text in texts(path.read_text(encoding="utf-8"))}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    program = re.search(r"^define CHECK_PYTHON\n(.*?)^endef", makefile, re.M | re.S)[1]
    return found | {text.replace("%s", GAP) for text in texts(program)}


def quoted(page: str) -> list[str]:
    """Code in the first cells of a page's tables."""
    cells = re.findall(r"^\| (`.*?`+)(?: \||, `)", (DOCS / page).read_text(encoding="utf-8"), re.M)
    return [cell.strip("`").strip() for cell in cells]


def is_message(quote: str, known: set[str]) -> bool:
    """Whether a quote, with … for what differs, is a whole message of the source."""
    pattern = re.compile(".*".join(map(re.escape, quote.split("…"))), re.S)
    return any(pattern.fullmatch(text) for text in known)


def test_every_quoted_message_is_one_of_the_source():
    quotes, known = quoted("troubleshooting.md"), messages()
    assert len(quotes) >= 40 and len(set(quotes)) == len(quotes)
    assert [quote for quote in quotes if len(re.findall(r"\w+", quote)) < 3] == []  # which any text would fit
    assert [quote for quote in quotes if not is_message(quote, known)] == []


@pytest.mark.parametrize(
    "quote", ["…: no such fil", "no such file", "…: no such files…", "config.… is …; wanted a bee"]
)
def test_a_message_that_is_not_of_the_source_is_found(quote):
    assert not is_message(quote, messages())


def settings_named(text: str) -> list[str]:
    """`section.key` or `section.key=value` in code, of the sections that a training has."""
    sections = "|".join(default_config())
    spans = re.findall(rf"`((?:{sections})\.[a-z0-9_.]+(?:=[^`]+)?)`", text)
    files = r"\.(jsonl?|txt|md|py|safetensors|sqlite3|array_record|npz|csv)$"
    found = [span.replace(r"\|", "|") for span in spans if not re.search(files, span)]
    return [span for span in found if not span.startswith("model.") or not hasattr(LoadedModel, span[6:])]


BESIDE = [("validation.path", "held_out.jsonl"), ("batch.rows", "64"), ("batch.buckets", "2")]
"""What others are set beside."""


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "experiments.md"], ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists_and_takes_its_value(page):
    plain = default_config()
    for setting in settings_named(page.read_text(encoding="utf-8")):
        key, given, value = setting.partition("=")
        group = config = load_config(str(ROOT / "configs" / "photos.py"), [*BESIDE, (key, value)]) if given else plain
        for name in key.split("."):
            assert name in group, f"{page.name}: {setting}"
            group = group[name]
        errors: list[str] = []
        with gathered(errors):
            check_config(config)
        assert not given or [line for line in errors if line.startswith(f"config.{key} ")] == [], page.name


def headings(page: Path) -> set[str]:
    """What a link may name behind # on a page, by GitHub's rule."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        assert not heading or heading in headings(path), f"{page.name}: {target}"


def test_every_page_of_docs_can_be_reached_from_the_readme():
    seen, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        seen.add(page)
        targets = re.findall(r"\]\(([^)\s#]+\.md)", page.read_text(encoding="utf-8"))
        ahead += [path for name in targets if (path := (page.parent / name).resolve()).is_file() and path not in seen]
    assert set(DOCS.glob("*.md")) <= seen


def checked(words: list[str]) -> None:
    """Raises InputError unless a program of a manifest takes its settings."""
    config = next(word.partition("=")[2] for word in words if word.startswith("--config="))
    overrides, rest = split_overrides(words)
    check_config(load_config(str(ROOT / config), overrides))
    assert {word.partition("=")[0] for word in rest if word.startswith("-")} == {"--config", "--workdir"}


def test_the_manifest_for_gke_asks_for_the_chips_of_its_slice_and_its_program_takes_its_settings():
    service, job = yaml.safe_load_all((ROOT / "launch" / "gke_tpu_slice.yaml").read_text(encoding="utf-8"))
    pod = job["spec"]["template"]["spec"]
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == job["spec"]["parallelism"]
    # The pods find each other by the names that the headless service gives them.
    assert service["spec"] == {"clusterIP": "None", "selector": {"job-name": job["metadata"]["name"]}}
    assert pod["subdomain"] == service["metadata"]["name"]
    (container,) = pod["containers"]
    across, down = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    chips = container["resources"]["limits"]["google.com/tpu"] * job["spec"]["completions"]
    assert chips == across * down
    program, *words = container["args"]
    assert (ROOT / program).is_file()
    checked(words)
    rows = next(int(word.rpartition("=")[2]) for word in words if ".batch.rows=" in word)
    assert rows % chips == 0


def test_the_script_for_slurm_is_one_that_bash_reads_and_its_program_takes_its_settings():
    script = ROOT / "launch" / "slurm.sh"
    assert subprocess.run(["bash", "-n", script], capture_output=True).stderr == b""
    text = script.read_text(encoding="utf-8").replace("\\\n", " ")
    command = next(line for line in text.splitlines() if line.startswith("srun "))
    words = shlex.split(command)
    assert words[1:3] == [".venv/bin/python", "scripts/train.py"]
    checked([word for word in words[3:] if word != "$@"])


EXAMPLES = {"csv": "csv", "jsonl": "json"}


def test_the_examples_of_data_are_read_as_they_stand(tmp_path):
    text = (DOCS / "data.md").read_text(encoding="utf-8")
    examples = {suffix: re.search(rf"^```{name}\n(.*?)^```", text, re.M | re.S)[1] for suffix, name in EXAMPLES.items()}
    for suffix, example in examples.items():
        (tmp_path / f"mine.{suffix}").write_text(example, encoding="utf-8")
    table, records = (sources.open_source(str(tmp_path / f"mine.{suffix}")) for suffix in examples)
    assert [record.messages[-1]["content"] for record in (table[0], table[1])] == ["Khon", "Ayutthaya"]
    assert records[0].id == "mask" and records[0].messages[-1]["content"] == "A khon mask."


SMALL = [
    f"--config.model.path={BASE}",
    "--config.train.epochs=0",
    "--config.train.steps=2",
    "--config.batch.sequence_length=512",
    "--config.model.max_visual_tokens=16",
]
"""What makes a training of the guides one of seconds."""


def commands_of(page: str) -> Iterator[list[str]]:
    """The words of a page's commands, for a model that is here; not what asks a server, is one, or draws the page."""
    text = (DOCS / page).read_text(encoding="utf-8").replace("Qwen/Qwen2.5-VL-3B-Instruct", str(BASE))
    for line in re.findall(r"^    \.venv/bin/python (scripts/.*)$", text, re.M):
        words = shlex.split(line)
        if "endpoint=" not in line and words[0] != "scripts/serve.py":
            yield [sys.executable, *words, *(SMALL if "--config=" in line else [])]


@pytest.mark.evidence
def test_the_commands_of_the_guides_run_in_their_order(tmp_path):
    for name in ("configs", "scripts"):  # the commands are given from the checkout
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(PHOTOS / "chelsea.jpg", tmp_path / "cat.jpg")
    shutil.copy(PHOTOS / "coffee.jpg", tmp_path / "cup.jpg")
    rows = [{"image": name, "question": "What is it?", "answer": name[:3]} for name in ("cat.jpg", "cup.jpg")]
    for name in ("questions.jsonl", "general.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps({**row, "id": name + row["image"]}) + "\n" for row in rows))
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    ran = []
    for page in ("from_pytorch.md", "exporting.md", "reading_the_report.md"):
        for words in commands_of(page):
            # The last page has a run of another name.
            done = run([word.replace("runs/mine", "runs/lora") for word in words], cwd=tmp_path, env=environment())
            assert done.returncode == 0, f"{words}\n{done.stderr}"
            ran.append(words[1])
    assert len(ran) == 11
    assert (tmp_path / "my-adapter" / "adapter_config.json").is_file()
    assert (tmp_path / "runs/lora/after/report.html").is_file() and (tmp_path / "runs/lora/swapped").is_dir()

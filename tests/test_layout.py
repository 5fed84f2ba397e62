"""The tree keeps its shape: imports run one way, and each part leaves alone what belongs to another.

Found by parsing every file, so that an import inside a function counts as well.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A layer imports from itself and from what stands below it. Files directly under vlm_jax/ (errors.py) are the ground:
# everything may import them, so they import no layer.
LAYERS = [
    {"scripts", "app", "benchmarks", "configs", "tests"},
    {"data_pipeline"},
    {"vlm_jax"},  # the public face, which reaches everything in the package
    {"vlm_jax.serving"},
    {"vlm_jax.retrieval"},
    {"vlm_jax.training", "vlm_jax.inference", "vlm_jax.evaluation"},
    {"vlm_jax.checkpoint", "vlm_jax.parallel"},
    {"vlm_jax.adapters"},
    {"vlm_jax.models"},
    {"vlm_jax.processing"},
    {"vlm_jax.<file>"},
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}
FOLDERS = {name.split(".")[0] for name in RANK}

JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "qwix", "tokamax"}
INPUT_OUTPUT = {"safetensors", "huggingface_hub", "transformers", "PIL", "orbax", "json", "pathlib"}
REFERENCES = {"torch", "peft"}
RUN_BY = {
    "vlm_jax/evaluation/metrics/bem.py": {"torch"},
    "data_pipeline/transformers_backend.py": {"torch"},
}
"""Files that run a model of another library, lazily and by an extra."""
FLAGS = {"absl.flags", "absl.app", "ml_collections.config_flags"}
NAMES_THAT_SAY_NOTHING = re.compile(r"(^|_)(utils?|helpers?|misc|manager|common)$")


def python_files(root: Path) -> Iterator[Path]:
    """Every Python file of the project below `root`, relative to it; not those of environments and caches."""
    yield from (path.relative_to(root) for path in sorted(root.glob("*.py")))
    for folder in sorted(FOLDERS):
        yield from (path.relative_to(root) for path in sorted((root / folder).rglob("*.py")))


def imported(root: Path, path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a file imports; `from a import b` gives `a.b`, whether or not b is a module."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = [*start, *([node.module] if node.module else [])]
            yield from ((node.lineno, ".".join([*base, alias.name])) for alias in node.names)


def layer_of_file(path: Path) -> str | None:
    parts = path.with_suffix("").parts
    if parts[0] != "vlm_jax":
        return parts[0] if len(parts) > 1 and parts[0] in RANK else None
    if len(parts) > 2:
        return f"vlm_jax.{parts[1]}"
    return "vlm_jax" if parts[1] == "__init__" else "vlm_jax.<file>"


def layer_of_import(root: Path, name: str) -> str | None:
    first, *rest = name.split(".")
    if first == "vlm_jax":
        if rest and (root / "vlm_jax" / rest[0]).is_dir():
            return f"vlm_jax.{rest[0]}"
        return "vlm_jax.<file>" if rest and (root / "vlm_jax" / f"{rest[0]}.py").is_file() else "vlm_jax"
    if (root / "scripts" / f"{first}.py").is_file():  # a script, and what lies beside it, is imported by its bare name
        return "scripts"
    return first if first in RANK and (root / first).is_dir() else None


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def errors(root: Path) -> list[str]:
    found = []
    for path in python_files(root):
        if any(NAMES_THAT_SAY_NOTHING.search(part) for part in path.with_suffix("").parts):
            found.append(f"{path}: the name says nothing about what is in it")
        layer = layer_of_file(path)
        if path.parts[0] == "vlm_jax" and layer not in RANK:
            found.append(f"{path}: {layer} has no place in LAYERS")
            continue
        for line, name in imported(root, path):
            target, place = layer_of_import(root, name), f"{path}:{line}"
            if target is not None and layer is not None and layer != "vlm_jax":
                sideways = RANK.get(target) == RANK[layer] == 0 and target == "scripts" != layer and layer != "tests"
                if target not in RANK or RANK[target] < RANK[layer] or sideways:
                    found.append(f"{place}: {layer} imports {name}, of {target}")
            if layer == "vlm_jax.processing" and within(name, JAX):
                found.append(f"{place}: processing runs without JAX and imports {name}")
            if layer == "vlm_jax.models" and within(name, INPUT_OUTPUT):
                found.append(f"{place}: models read and write nothing and import {name}")
            if layer not in ("scripts", "configs") and within(name, FLAGS):
                found.append(f"{place}: only scripts read flags, and this imports {name}")
            if layer not in ("tests", "benchmarks") and within(name, REFERENCES - RUN_BY.get(path.as_posix(), set())):
                found.append(f"{place}: {name} is for tests and benchmarks only")
    return found


def test_imports_run_one_way_and_names_say_what_is_inside():
    assert errors(ROOT) == []


def test_no_program_imports_another():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.py")}
    programs = {name for name, text in texts.items() if "command_line.run(" in text and name != "command_line"}
    assert {"train", "evaluate", "train_and_evaluate", "sweep", "quickstart"} <= programs
    for name in texts:
        used = {module.partition(".")[0] for _, module in imported(ROOT, Path("scripts") / f"{name}.py")}
        assert not used & programs, f"scripts/{name}.py imports a program; what both need is a module beside them"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("vlm_jax/processing/text.py", "from vlm_jax.models import vlm"),
        ("vlm_jax/processing/text.py", "from ..models import vlm"),
        ("vlm_jax/processing/text.py", "from .. import models"),
        ("vlm_jax/processing/text.py", "import jax.numpy as jnp"),
        ("vlm_jax/processing/deeper/text.py", "from ...inference import engine"),
        ("vlm_jax/models/vlm.py", "def load():\n    import json"),
        ("vlm_jax/models/vlm.py", "from pathlib import Path"),
        ("vlm_jax/models/vlm.py", "import vlm_jax"),
        ("vlm_jax/models/vlm.py", "from vlm_jax import load"),
        ("vlm_jax/models/vlm.py", "from vlm_jax.adapters.lora import Linear"),
        ("vlm_jax/checkpoint/source.py", "import vlm_jax.training.loop"),
        ("vlm_jax/checkpoint/source.py", "import torch"),
        ("vlm_jax/training/loop.py", "from data_pipeline import loader"),
        ("vlm_jax/training/loop.py", "from absl import flags"),
        ("vlm_jax/errors.py", "from vlm_jax.processing import text"),
        ("vlm_jax/unknown/new.py", "import numpy"),
        ("data_pipeline/loader.py", "from scripts import train"),
        ("data_pipeline/loader.py", "import command_line"),
        ("data_pipeline/loader.py", "from absl.flags import FLAGS"),
        ("app/chat.py", "import command_line"),
        ("scripts/train.py", "from peft import LoraConfig"),
        ("vlm_jax/models/image_utils.py", "import numpy"),
        ("data_pipeline/common/text.py", "import numpy"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, path, line):
    plant_sound_tree(tmp_path)
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(line + "\n")
    assert len(errors(tmp_path)) == 1
    assert errors(tmp_path)[0].startswith(path)


def test_a_sound_tree_has_no_errors(tmp_path):
    plant_sound_tree(tmp_path)
    assert errors(tmp_path) == []


def plant_sound_tree(root: Path) -> None:
    sound = {
        "scripts/command_line.py": "from absl import flags\nfrom vlm_jax.errors import InputError",
        "scripts/train.py": "import command_line\nfrom data_pipeline import loader\nfrom vlm_jax.training import loop",
        "app/chat.py": "import vlm_jax",
        "tests/test_train.py": "import torch\nimport command_line",
        "data_pipeline/loader.py": "import jax\nfrom vlm_jax.processing import text\nimport vlm_jax",
        "vlm_jax/__init__.py": "def __getattr__(name):\n    from vlm_jax.inference import engine",
        "vlm_jax/errors.py": "import json",
        "vlm_jax/training/loop.py": "from vlm_jax.evaluation import metrics\nfrom ..checkpoint import source",
        "vlm_jax/evaluation/metrics/vqa.py": "from vlm_jax import errors",
        "vlm_jax/inference/engine.py": "from vlm_jax.models.vlm import Model",
        "vlm_jax/checkpoint/source.py": "import json\nfrom vlm_jax.parallel import mesh",
        "vlm_jax/parallel/mesh.py": "import jax\nfrom .rules import RULES",
        "vlm_jax/parallel/rules.py": "RULES = ()",
        "vlm_jax/adapters/lora.py": "from vlm_jax.models import vlm",
        "vlm_jax/models/vlm.py": "from vlm_jax.processing import text\nfrom vlm_jax.errors import InputError",
        "vlm_jax/processing/text.py": "import json\nimport numpy\nfrom jaxtyping import Int",
    }
    for name, source in sound.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source + "\n")

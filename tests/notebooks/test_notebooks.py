"""The notebooks: what is committed is whole, small and of no machine, and all their cells run from top to bottom."""

import json
import re
import shutil

import nbformat
import pytest

from benchmarks.notebooks import NOTEBOOKS, ROOT, cleaned, execute
from tests.started import environment


def images_of(cell):
    """The encoded images that a cell shows."""
    shown = [item for output in cell.outputs for item in output.get("data", {}).items()]
    return [text for kind, text in shown if kind.startswith("image/")]


def check_drawn(cells):
    """What draws shows it: nothing else has taken another backend meanwhile."""
    drawing = [cell for cell in cells if "plt.figure(" in cell.source or "plt.subplots(" in cell.source]
    assert all(images_of(cell) for cell in drawing)


pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_a_committed_notebook_is_valid_executed_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert all(len(cell.source.splitlines()) <= 45 for cell in code)
    check_drawn(code)
    assert max(len(image) for cell in code for image in images_of(cell)) < 60_000 and path.stat().st_size < 200_000
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)


def test_a_committed_notebook_holds_no_path_of_a_machine_and_no_secret(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(?:home|root|tmp|Users|work|mnt|opt|usr)/", text)
    assert not re.search(r"AIza[\w-]{20}|sk-\w{20}|api_key\W+=", text)


def test_every_cell_runs_on_a_fresh_machine(path, tmp_path):
    notebook = cleaned(execute(path, tmp_path, small=True, environment=environment()), tmp_path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    check_drawn(code)
    assert str(tmp_path) not in json.dumps(notebook) and str(ROOT) not in json.dumps(notebook)
    (runs,) = (tmp_path / "runs").iterdir()
    assert runs.name == path.stem and len(list(runs.rglob("metrics.jsonl"))) >= 1
    reports = [json.loads(report.read_text()) for report in runs.rglob("report.json")]
    assert len(reports) == 2 and len({report["n"] for report in reports}) == 1 and reports[0]["n"] > 0
    assert all(not report["errors"] for report in reports)
    shutil.rmtree(runs)

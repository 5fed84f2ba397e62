"""Executes the notebooks from top to bottom, writes their outputs back, and prints the seconds that each took.

    .venv/bin/python benchmarks/notebooks.py
    .venv/bin/python benchmarks/notebooks.py --only=chain_of_thought

Each runs in an empty folder of its own, so that nothing is gone on with. Wants the test extra.
"""

import argparse
import os
import re
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = "NOTEBOOK_SMALL"
"""The variable by which a notebook runs the same cells with less of everything."""
_NOISE = re.compile(
    r"^(?:[EWI]\d{4} |WARNING: All log messages before absl|.*TqdmWarning: IProgress|  from \.autonotebook).*\n?",
    re.MULTILINE,
)
"""What libraries write to the console that says nothing of the run."""


def execute(
    path: Path, folder: Path, *, small: bool = False, environment: Mapping[str, str] = os.environ
) -> nbformat.NotebookNode:
    """The notebook with the outputs of all its cells, run in a folder.

    Raises:
      nbclient.exceptions.CellExecutionError: of the first cell that fails.
    """
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources=place)
    # Streamlit, where something has loaded it, has set a backend that shows nothing.
    own = {name: value for name, value in environment.items() if name != "MPLBACKEND"}
    client.execute(env={**own, SMALL: "1" if small else ""})
    return notebook


def cleaned(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """As it is committed: no path of this machine, no times of execution, nothing that libraries of C++ say."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _NOISE.sub("", output.text)
                for place in (folder, ROOT, Path.home()):
                    output.text = output.text.replace(f"{place}/", "")
        if cell.cell_type == "code":
            cell.outputs = _joined(output for output in cell.outputs if output.get("text", "x").strip())
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def _joined(outputs: Iterable[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Lines that follow one another on the same stream as one output."""
    joined: list[nbformat.NotebookNode] = []
    for output in outputs:
        if joined and output.output_type == "stream" and output.name == joined[-1].get("name"):
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="names of notebooks with commas between; all where it is empty")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else [path.stem for path in NOTEBOOKS]
    for path in (path for path in NOTEBOOKS if path.stem in names):
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        with tempfile.TemporaryDirectory() as folder:
            notebook = cleaned(execute(path, Path(folder)), Path(folder))
        nbformat.write(notebook, path)
        user = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used
        seconds = time.perf_counter() - began
        print(f"{path.stem}: {seconds:.0f} s, {user:.0f} s of a core; {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()

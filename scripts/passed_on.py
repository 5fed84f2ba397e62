"""The program that a job runs, and what of the command line is for it.

The program is named on the command line, and its flags are its own to define: it is loaded, not run, before the flags
are parsed. So they are known, checked and listed by --help together with the launcher's.
"""

import dataclasses
import importlib
import re
from pathlib import Path

from absl import flags

import command_line

SCRIPTS = Path(__file__).parent
_RUNS = re.compile(r"^    command_line\.run\(main(, config=True)?\)", re.M)
_ATTENDED = {
    "chat": "waits for a person to type",
    "launch_vertex": "starts jobs itself",
    "quickstart": "is made for the machine in front of you",
    "review_corpus": "waits for a person to review",
    "serve": "listens, and nobody reaches a training job",
}


def programs() -> list[str]:
    """Names of the programs that a job can run."""
    texts = {path.stem: path.read_text("utf-8") for path in sorted(SCRIPTS.glob("*.py"))}
    return [name for name, text in texts.items() if _RUNS.search(text) and name not in _ATTENDED]


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of this folder: whether it reads a config, and writes a folder of its own."""

    name: str
    takes_config: bool
    takes_workdir: bool


def load(argv: list[str]) -> Program:
    """Loads the program of --script, train unless given, with its flags; a name that cannot be run is `refusal`'s."""
    name = "train"
    for word, following in zip(argv[1:], [*argv[2:], ""], strict=True):
        if match := re.fullmatch(r"--?script(?:=(.*))?", word, re.DOTALL):
            name = following if match[1] is None else match[1]
    if name in programs():
        importlib.import_module(name)
    takes_workdir = "workdir" in flags.FLAGS
    if takes_workdir:
        flags.FLAGS["workdir"].validators.clear()  # a request can be looked at before there is a bucket
    else:
        flags.DEFINE_string("workdir", None, "gs://BUCKET/FOLDER, where Vertex AI keeps what belongs to the job")
    runs = _RUNS.search((SCRIPTS / f"{name}.py").read_text("utf-8")) if name in programs() else None
    return Program(name, runs is not None and runs[1] is not None, takes_workdir)


def refusal(name: str) -> str | None:
    """Why a job does not run this program; None where it does."""
    if name in programs():
        return None
    if name in _ATTENDED:
        return f"--script={name}: {_ATTENDED[name]}, and a job has nobody beside it"
    from vlm_jax.errors import nearest

    return f"--script={name}: no such program; {nearest(name, programs())}"


def own_flags(launcher: set[str]) -> list[tuple[str, str]]:
    """(name, value) of the program's flags that were given; a flag given several times is there as often."""
    pairs = []
    for name in sorted(command_line.given_flags() - launcher - {"config", "debug", "workdir"}):
        flag = flags.FLAGS[name]
        values = flag.value if isinstance(flag, flags.MultiFlag) else [flag.value]
        pairs += [(name, _text(flag, value)) for value in values]
    return pairs


def _text(flag: flags.Flag, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)

"""The stages of the quickstart: corpora, the base's answers, a training, answers again, an export.

Each is one call of what a script calls too, and knows the command that does the same. JAX is loaded where a stage needs
it, for all of them may have been done before.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.config_files import Load, Override
from data_pipeline.corpus.drawn import offline
from data_pipeline.evaluation_run import evaluate
from data_pipeline.evaluation_settings import Evaluation
from vlm_jax import progress, terminal
from vlm_jax.errors import InputError
from vlm_jax.evaluation import report
from vlm_jax.training.config import check_config

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("synthetic", "photo")
"""Of the objects, which are asked."""
CONFIGS = {"objects": "corpus/objects.py", "scenes": "corpus/scenes.py", "train": "quickstart.py"}
FEW_SCENES = (("seed", "1"), ("train", "0"), ("drill", "800"), ("things", "0"), ("finding", "0"))
"""Of the plain scenes there are only as many as keep what the base could do."""


@dataclasses.dataclass(frozen=True)
class Quickstart:
    """What is made.

    Attributes:
      output: the folder of it all.
      objects, scenes, train: settings that differ: of the invented objects, the plain scenes and the training.
      base: the folder of the model that learns.
      configs: the folder of `CONFIGS`.

    Folders may be given as text.
    """

    output: Path
    objects: Sequence[Override] = ()
    scenes: Sequence[Override] = ()
    train: Sequence[Override] = ()
    base: Path = ROOT / "vlm_jax" / "assets" / "tiny_base"
    configs: Path = ROOT / "configs"

    def __post_init__(self) -> None:
        for name in ("output", "base", "configs"):
            object.__setattr__(self, name, Path(getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class QuickstartStage:
    """A part of it.

    Attributes:
      command: the script that does the same, and its arguments.
      do: does it, and returns what may be shown of it.
      folder, products: where it works, and what lies there when it is done.
      needs: stages whose work it uses: done anew, they have it done anew.
    """

    name: str
    command: list[str]
    do: Callable[[], str]
    folder: Path
    products: tuple[str, ...]
    needs: tuple[str, ...] = ()

    def finished(self) -> bool:
        return all(any(self.folder.glob(product)) for product in self.products)


class StageStopped(Exception):
    """A person asked a stage to stop, and it saved what it had."""


@dataclasses.dataclass(frozen=True)
class _Settings:
    """A config file with what differs from it."""

    file: str
    changed: Sequence[Override]
    config: ConfigDict

    def command(self, script: str, folder: str) -> list[str]:
        changes = [f"--config.{key}" if text is None else f"--config.{key}={text}" for key, text in self.changed]
        return [script, f"--config={self.file}", folder, *changes]


def stages_of(quickstart: Quickstart, load: Load) -> list[QuickstartStage]:
    """The stages in order. Corpora and training go on by themselves where they were stopped, and so do evaluations.

    Raises:
      InputError: settings that cannot be, of all stages.
    """
    output = quickstart.output
    objects, scenes, run, exported = (output / name for name in ("objects", "scenes", "run", "hf"))
    settings = _read(quickstart, f"{objects / 'train.jsonl'},{scenes / 'drill.jsonl'}", load)
    shown = ",".join(str(objects / f"{split}.jsonl") for split in SPLITS)
    questions = f"{shown},{scenes / 'held_out.jsonl'}"
    corpora = ("draw the objects", "draw plain scenes")
    before, after, swapped = (str(output / name) for name in ("before", "after", "swapped"))
    return [
        _drawing(corpora[0], settings["objects"], objects, ("train", *SPLITS)),
        _drawing(corpora[1], settings["scenes"], scenes, ("drill", "held_out")),
        _asking("ask the base", Evaluation(str(quickstart.base), questions, before), corpora),
        QuickstartStage(
            "train",
            settings["train"].command("train.py", f"--workdir={run}"),
            functools.partial(_train, settings["train"].config, str(run)),
            run,
            ("checkpoints/*", "metrics.jsonl"),
        ),
        _asking(
            "ask again",
            Evaluation(str(run), questions, after, baseline=before),
            (*corpora, "ask the base", "train"),
        ),
        _asking(
            "swap the images",
            Evaluation(str(run), shown, swapped, images="swapped"),
            ("draw the objects", "train"),
        ),
        QuickstartStage(
            "export",
            ["convert_checkpoint.py", f"--source={run}", f"--target={exported}", "--format=hf"],
            functools.partial(_export, run, exported),
            exported,
            ("config.json", "*.safetensors", "tokenizer.json"),
            ("train",),
        ),
    ]


def _read(quickstart: Quickstart, data: str, load: Load) -> dict[str, _Settings]:
    """The settings of the corpora and of the training on `data`. Raises InputError with every error of them."""
    changed: dict[str, Sequence[Override]] = {
        "objects": quickstart.objects,
        "scenes": [*FEW_SCENES, *quickstart.scenes],
        "train": [("data.path", data), *quickstart.train],
    }
    read, errors = {}, []
    for name, file in CONFIGS.items():
        path = os.path.relpath(quickstart.configs / file)
        try:
            config = load(path, changed[name])
            check_config(config) if name == "train" else offline.check(*_corpus_of(config))
            read[name] = _Settings(path, changed[name], config)
        except InputError as error:
            errors += [f"--{name}: {line.removeprefix('--config.')}" for line in error.lines]
    if errors:
        raise InputError(errors)
    return read


def _corpus_of(config: ConfigDict) -> tuple[str, dict]:
    """The kind of a corpus, and its other settings."""
    settings = config.to_dict()
    return settings.pop("corpus"), settings


def _drawing(name: str, settings: _Settings, folder: Path, splits: Sequence[str]) -> QuickstartStage:
    command = settings.command("generate_corpus.py", f"--output={folder}")
    draw = functools.partial(_draw, settings.config, folder)
    return QuickstartStage(name, command, draw, folder, ("corpus.json", *(f"{split}.jsonl" for split in splits)))


def _draw(config: ConfigDict, folder: Path) -> str:
    made = offline.make(folder, *_corpus_of(config), progress=functools.partial(progress.shown, unit="view"))
    return offline.closing_line(folder, *made)


def _asking(name: str, evaluation: Evaluation, needs: tuple[str, ...]) -> QuickstartStage:
    evaluation = dataclasses.replace(evaluation, max_new_tokens=16)
    values = {field.name: (getattr(evaluation, field.name), field.default) for field in dataclasses.fields(evaluation)}
    command = [
        "evaluate.py",
        *(f"--{key}={value}" for key, (value, default) in values.items() if value and value != default),
    ]
    products = ("predictions.jsonl", "report.json", "report.html")
    return QuickstartStage(name, command, functools.partial(_ask, evaluation), Path(evaluation.output), products, needs)


def _ask(evaluation: Evaluation) -> str:
    from vlm_jax.parallel import hosts

    hosts.start()  # what trains later in this process could not, once devices have been looked for
    summary = evaluate(evaluation, progress=functools.partial(progress.shown, unit="question"))
    return report.closing_lines(summary, evaluation.output)


def _train(config: ConfigDict, workdir: str) -> str:
    from data_pipeline.training_run import run

    result = run(config, workdir)
    if result.stopped:
        raise StageStopped
    return f"{result.workdir}: {result.done} steps are done"


def _export(run: Path, target: Path) -> str:
    import vlm_jax

    vlm_jax.export(run, target, "hf", say=terminal.say)
    return f"{target}: written as hf"

"""What is asked of which model, as settings: an evaluation's own, and its benchmark's where it says nothing."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline import prompting
from data_pipeline.prompting import Prompt
from data_pipeline.sources.columns import errors_of as columns_errors
from data_pipeline.teachers import settings as teachers
from vlm_jax import locations
from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import gathered
from vlm_jax.evaluation import benchmarks, controls, metrics
from vlm_jax.evaluation.benchmark import Benchmark

SETTINGS = "settings.json"
"""In the folder of an evaluation: what moves a score."""
_BEFORE = {"data": "", "template": "", "suffix": ""}
"""What evaluations did of which earlier versions wrote nothing down."""
BACKENDS = ("jax", "transformers")
RECOMMENDED = "recommended"
"""Instead of a number of visual tokens: the bounds that the benchmark recommends."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What is asked of which model.

    Attributes:
      model: Hugging Face folder, hub id, or run folder; base: of one with adapters, where its base moved.
      benchmark: a name of `benchmarks.BENCHMARKS`; or records, tables or any other data that training reads, commas
        between several.
      output: the folder of the report.
      data: the official files of a benchmark that is named; commas between several.
      images: a key of `controls.CONTROLS`: given, swapped or blank.
      metric: as `metrics.score` takes it; None: the benchmark's, else normalised.
      bem: the folder of the model that the metric bem needs.
      judge: a teacher that judges the answers besides, as `key=value,…` of its settings; empty for none. It moves no
        score.
      baseline: folders of earlier evaluations to compare with, commas between; empty for none.
      general: records of general sets, to see what was forgotten; commas between. They are asked as they are, scored by
        normalised, and count in no other figure.
      backend: jax, or transformers: a Hugging Face folder is answered by PyTorch, to compare with.
      devices: of this process that answer side by side, each with a copy of the weights; 0: all accelerators, or one
        CPU.
      tensor: devices among which the weights of one copy are divided.
      format, image_root, columns, question: of the benchmark, as `sources.open_source` takes them.
      template, suffix: how its questions are asked, as `prompting.Prompt` takes them; None: as the benchmark does, else
        as they are.
      max_new_tokens: tokens an answer may have; None: as the benchmark does, else 64.
      visual_tokens, token_reduction, token_reduction_layer: how much of an image the model sees, as `vlm_jax.load`
        takes them; visual_tokens may be `RECOMMENDED`.
    """

    model: str
    benchmark: str
    output: str
    data: str = ""
    base: str = ""
    images: str = "given"
    metric: str | None = None
    bem: str = ""
    judge: str = ""
    baseline: str = ""
    general: str = ""
    backend: str = "jax"
    devices: int = 0
    tensor: int = 1
    format: str = "auto"
    image_root: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    question: str = ""
    template: str | None = None
    suffix: str | None = None
    max_new_tokens: int | None = None
    visual_tokens: float | int | tuple[int, int] | str | None = None
    token_reduction: str | None = None
    token_reduction_layer: int | None = None

    @property
    def entry(self) -> Benchmark | None:
        """The benchmark's in the table; None of other data."""
        return benchmarks.BENCHMARKS.get(self.benchmark)

    @property
    def files(self) -> list[str]:
        """What is read; none where a benchmark is named and its files are not."""
        names = self.benchmark if self.entry is None else self.data
        return locations.named_in(names) if names else []

    @property
    def general_files(self) -> list[str]:
        """The general sets."""
        return locations.named_in(self.general) if self.general else []

    @property
    def scored_by(self) -> str:
        """The metric."""
        return self.metric or "normalised"

    @property
    def prompt(self) -> Prompt:
        """How questions are asked, where `errors_of` finds nothing wrong with it."""
        return Prompt(self.template or "", self.suffix or "")

    @property
    def official(self) -> bool:
        """Whether a benchmark's files are read as they are published."""
        return self.entry is not None and self.format in ("auto", self.entry.form)


def with_defaults(evaluation: Evaluation) -> Evaluation:
    """With what its benchmark says, where it says nothing itself."""
    entry = evaluation.entry
    defaults: dict[str, Any] = {"metric": "normalised", "template": "", "suffix": "", "max_new_tokens": 64}
    if entry is not None:
        defaults = {name: getattr(entry, name) for name in defaults}
    given = {name: value for name in defaults if (value := getattr(evaluation, name)) is not None}
    changed = {**defaults, **given}
    if entry is not None and evaluation.format == "auto":
        changed["format"] = entry.form
    if entry is not None and evaluation.visual_tokens == RECOMMENDED:
        changed["visual_tokens"] = entry.visual_tokens
    return dataclasses.replace(evaluation, **changed)


def settings_of_questions(evaluation: Evaluation) -> dict[str, Any]:
    """The settings about what is asked and scored, as far as they move a score, of an evaluation with its defaults."""
    return {
        "benchmark": evaluation.benchmark,
        "data": evaluation.data,
        "format": evaluation.format,
        "columns": dict(evaluation.columns),
        "question": evaluation.question,
        "template": evaluation.prompt.template,
        "suffix": evaluation.prompt.suffix,
        "images": evaluation.images,
        "metric": evaluation.scored_by,
        "max_new_tokens": evaluation.max_new_tokens,
        "general": evaluation.general,
        **({"bem": evaluation.bem} if evaluation.bem else {}),
    }


def settings_in(path: Path) -> dict[str, Any]:
    """What an evaluation of this or an earlier version wrote into its `SETTINGS`."""
    settings = read_json(path)
    if "pictures" in settings:  # as earlier versions called it
        settings["images"] = settings.pop("pictures")
    return {**_BEFORE, **settings}


def errors_of(evaluation: Evaluation) -> list[str]:
    """What is wrong with the settings of an evaluation with its defaults, as far as no file is needed to tell."""
    errors: list[str] = []
    entry = evaluation.entry
    if wrong := metrics.error_in(evaluation.scored_by, bem=evaluation.bem, ask=None):
        errors.append(f"--metric={evaluation.metric}: {wrong}")
    if evaluation.images not in controls.CONTROLS:
        errors.append(f"--images={evaluation.images}: known are {', '.join(controls.CONTROLS)}")
    if entry is None and evaluation.data:
        with gathered(errors):
            benchmarks.named(evaluation.benchmark)
    if entry is not None and not evaluation.files:
        errors.append(f"--data is not given; wanted the official files of {entry.title}: {entry.files}")
    if evaluation.visual_tokens == RECOMMENDED:
        errors.append(f"--visual_tokens={RECOMMENDED}: only benchmarks that are named recommend some")
    if evaluation.judge:
        with gathered(errors):
            teachers.checked(teachers.in_text(evaluation.judge, "--judge"), "--judge", wanted="text")
    errors += columns_errors(evaluation.columns, "--column")
    asked_as = {name: getattr(evaluation, name) or "" for name in prompting.SETTINGS}
    errors += [line.replace("evaluation.", "--", 1) for line in prompting.errors_of(asked_as, "evaluation")]
    flag = "--benchmark" if entry is None else "--data"
    for names, named_in in ((evaluation.files, flag), (evaluation.general_files, "--general")):
        times = Counter(map(locations.absolute, names))
        errors += [f"{name}: is named {n} times in {named_in}; name it once" for name, n in times.items() if n > 1]
    if evaluation.backend not in BACKENDS:
        errors.append(f"--backend={evaluation.backend}: known are {', '.join(BACKENDS)}")
    if evaluation.backend == "transformers":
        own = ("base", "devices", "visual_tokens", "token_reduction", "token_reduction_layer")
        errors += [f"--{name} does not go with --backend=transformers" for name in own if getattr(evaluation, name)]
        errors += ["--tensor does not go with --backend=transformers"] if evaluation.tensor > 1 else []
    if evaluation.devices < 0:
        errors.append(f"--devices={evaluation.devices}: wanted 0 or more")
    if evaluation.tensor < 1 or evaluation.devices % max(1, evaluation.tensor):
        errors.append(
            f"--tensor={evaluation.tensor}: wanted 1 or more, and --devices={evaluation.devices} a multiple of it"
        )
    return errors

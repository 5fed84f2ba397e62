"""Students before and after, and their teacher, on questions that people have answered; each in a folder of its own.

All are asked as the pairs were, and compared with the student as it was: the controls tell whether what was gained is
the gap's doing.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.answering_models import TEACHER
from data_pipeline.evaluation_run import evaluate
from data_pipeline.evaluation_settings import Evaluation
from data_pipeline.teachers.settings import SETTINGS, as_text
from vlm_jax import progress, terminal
from vlm_jax.checkpoint import description
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

DONE = "asked.json"
"""In the folder of an evaluation: what was asked, once all is answered and the report is there."""


@dataclass(frozen=True)
class Benchmark:
    """What all are asked.

    Attributes:
      name: a benchmark's with its official files in `data`, or records.
      metric: its own; "" for that of the name.
    """

    name: str
    data: str = ""
    metric: str = ""


def seen_by_student(training: Mapping[str, Any]) -> dict[str, Any]:
    """How much of an image a student sees, by a training's `model`, as an `Evaluation` takes it."""
    model = training["model"]
    if model["visual_tokens"] == 1.0:
        return {"visual_tokens": (model["min_visual_tokens"], model["max_visual_tokens"])}
    layer = model["token_reduction_layer"] or None
    reduction = {"token_reduction": model["token_reduction"], "token_reduction_layer": layer}
    return {"visual_tokens": model["visual_tokens"], **reduction}


def check_seen(student: str, training: Mapping[str, Any]) -> None:
    """Raises InputError where a student would see other images before its training than in it: a share of the visual
    tokens is taken of what its folder says that an image takes, while a training says that itself."""
    model = training["model"]
    if model["visual_tokens"] == 1.0:
        return
    source = open_model(student)
    least, most = description.read_image_processor(source.assets, source.config).token_range
    if (least, most) != (model["min_visual_tokens"], model["max_visual_tokens"]):
        raise InputError(
            f"config.training.model.visual_tokens is {model['visual_tokens']}, which before training is taken of the "
            f"{least} to {most} tokens of an image that {student} itself says, and in it of "
            f"{model['min_visual_tokens']} to {model['max_visual_tokens']}; set config.training.model, "
            f"min_visual_tokens={least} and max_visual_tokens={most}, or change the folder's image processor"
        )


def scored(
    who: str,
    output: Path,
    benchmark: Benchmark,
    settings: Mapping[str, Any],
    *,
    seen: Mapping[str, Any],
    before: str = "",
) -> None:
    """Asks one model, unless it was asked all this before: then it is not even loaded.

    Args:
      who: a folder, or what `answering_models` takes for a teacher.
      settings: of the alignment.
      seen: as `seen_by_student`; {} of a teacher.
      before: the folder of the evaluation to compare with; "" of the first.

    Raises:
      InputError: a model or benchmark that cannot be used.
    """
    own = settings["evaluate"]
    evaluation = Evaluation(
        model=who,
        benchmark=benchmark.name,
        data=benchmark.data,
        output=str(output),
        format=own["format"],
        image_root=own["image_root"] or None,
        metric=own["metric"] or benchmark.metric or None,
        general=own["general"],
        template=settings["ask"]["template"],
        suffix=settings["ask"]["suffix"],
        max_new_tokens=own["max_new_tokens"],
        baseline=before,
        **seen,
    )
    request = json.loads(json.dumps({**dataclasses.asdict(evaluation), "stamps": _stamps(evaluation)}))
    if (output / DONE).is_file() and read_json(output / DONE) == request:
        return
    evaluate(evaluation, say=terminal.say, progress=functools.partial(progress.shown, unit="question"))
    write_json(output / DONE, request)


def _stamps(evaluation: Evaluation) -> list[tuple[str, int, int]]:
    """(name, bytes, time of the last change) of a model's files and of the questions': one that was trained again, or
    edited, is not what was asked before."""
    paths = [Path(name) for name in (evaluation.model, *evaluation.files, *evaluation.general_files)]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def named(teacher: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """(what an evaluation calls a teacher, how much of an image it sees): a model that is loaded here by its folder,
    unless it is to be held in fewer bits, without which it might not fit."""
    as_it_is = all(teacher.get(name, usual) == usual for name, usual in (("quantise", "none"), ("dtype", "auto")))
    if teacher["kind"] == "local" and as_it_is:
        bounds = teacher.get("min_visual_tokens", 0), teacher.get("max_visual_tokens", 0)
        if any(bounds):
            return teacher["model"], {"visual_tokens": bounds}
        if teacher.get("visual_tokens", 1.0) != 1.0:
            return teacher["model"], seen_by_student({"model": teacher})
        return teacher["model"], {}
    usual = SETTINGS[teacher["kind"]]
    own = {name: value for name, value in teacher.items() if name not in usual or usual[name] != value}
    return TEACHER + as_text(own), {}

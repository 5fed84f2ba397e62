"""The settings of an alignment, with their defaults and what they mean; and whether they can be.

Files in `configs/parity/` start from `parity_config()` and change what is theirs. `config.training` is a training's own
page (`vlm_jax.training.config`), whose data and folder are filled in here; settings of teachers are
`data_pipeline.teachers.settings`'.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline import prompting, setting_groups
from data_pipeline.corpus.projection import HERE
from data_pipeline.parity import matchers, prompts
from data_pipeline.parity.splits import SPLITS
from data_pipeline.teachers import settings as teacher_settings
from data_pipeline.teachers.prices import prices_of
from vlm_jax import locations
from vlm_jax.errors import InputError, gathered, nearest
from vlm_jax.evaluation import benchmarks, metrics
from vlm_jax.training.config import check_config, default_config

ARMS = ("kept", "random", "all")
"""What a student is trained on: the parity gap; as many pairs drawn from all; all. The last two are the controls."""
OWN_IMAGES = "images"
SUFFIX = "\nAnswer the question using a single word or phrase."


def defaults() -> ConfigDict:
    """Every setting: the page on which a person looks up what there is."""
    return ConfigDict(
        {
            # images of your own, or a data set whose official files are split: textvqa | stvqa | chartqa | okvqa
            "parity": OWN_IMAGES,
            "seed": 0,  # of the splits, of what is drawn for the controls, and of what is thinned
            "rounds": 1,  # of writing, comparing and training; each begins with the student of the one before
            "store": "",  # folder of the teachers' answers, which several alignments may share; "": in the workdir
            "images": {
                "path": "",  # a folder with images, records that show some, or official files; commas between several
                "format": "auto",  # of records or files, as of a training's data
                "image_root": "",  # what relative image paths start from; empty: the file's own folder
                "most": 0,  # images that are written about, chosen by a hash; 0: all
            },
            "annotate": {
                "prompt": OWN_IMAGES,  # one in data_pipeline/parity/prompts, or a file of your own that ends in .txt
                "pairs": 1,  # that the teacher is asked for about an image, each in a call of its own
                "types": ("",),  # sentences about the kind of question, asked for in turn
                "temperature": 1.0,  # of the teacher, while it writes
                "max_output_tokens": 128,  # of what it writes about an image
                "same_question": 20,  # images that one question may be about, in the same words
                "balance": 2.0,  # pairs of a type at most, as a multiple of the rarest type's; 0: as they come
                # Instead of asking: pairs that were written before, in MPA's file or this program's annotated.jsonl.
                "file": "",
            },
            # How questions are asked: of student and teacher here, in training, and in evaluation.
            "ask": {
                "template": "",  # words around each question, as of a training's data
                "suffix": SUFFIX,  # behind each
                "max_output_tokens": 32,  # of an answer
                "rows": 16,  # questions that the student answers together
            },
            "identify": {
                # When an answer counts as right: exact | normalised | contains | vqa | anls | relaxed | judge |
                # mpa_substring, to reproduce what was published.
                "matcher": "normalised",
                "samples": 1,  # answers of the teacher to its own question; above 1 they are drawn
                "temperature": 0.7,  # of those that are drawn
                "agree": 1.0,  # the share of them that must be right
                # Instead of asking: answers that were given before, in MPA's files.
                "student_file": "",
                "teacher_file": "",  # likewise
            },
            "level": {
                "arms": ARMS,  # what students are trained on, each from the same start and for as many steps
                "replay": 0.1,  # share of the examples of kept: pairs that the student had right; random is as large
            },
            "training": _training(),
            "evaluate": {
                # A name in docs/benchmarks.md with its official files in data, or records; "": the split's own test.
                "benchmark": "",
                "data": "",  # the official files of a benchmark that is named
                "format": "auto",  # of records
                "image_root": "",  # of records
                "metric": "",  # "": the benchmark's own
                "max_new_tokens": 32,  # an answer may have
                "general": "",  # records of general sets, to see what was forgotten; commas between
                "teacher": True,  # it is asked too
            },
            "teachers": {
                "text": {},  # the large model: {"kind": vertex | openai_compatible | local, "model": …}
                "judge": {},  # where identify.matcher is judge
            },
            "prices": {},  # {"date": day, model: {"input", "output"}}: dollars for a million tokens
        }
    )


def _training() -> ConfigDict:
    config = default_config()
    config.train.epochs = 1
    return config


def parity_config(**changes: Any) -> ConfigDict:
    """All settings. A mapping among the changes changes what it names and keeps the rest of its group.

    Raises:
      InputError: a change of a setting that is not there.
    """
    return setting_groups.changed(defaults(), changes)


def check(config: ConfigDict, *, max_cost: float | None = None) -> None:
    """Raises InputError, with every error, where nothing can be aligned with these.

    Args:
      max_cost: dollars that must not be passed, which needs the price of every teacher that is paid.
    """
    settings = config.to_dict()
    like = defaults().to_dict()
    if errors := setting_groups.of_other_types({**settings, "training": {}}, {**like, "training": {}}):
        raise InputError(errors)
    known = (OWN_IMAGES, *SPLITS)
    if settings["parity"] not in known:
        errors.append(f"config.parity is {settings['parity']!r}; {nearest(settings['parity'], known)}")
    errors += _of_images(settings)
    with gathered(errors):
        prompts.read(settings["annotate"]["prompt"], "config.annotate.prompt")
    errors += [line.replace("evaluation.", "", 1) for line in prompting.errors_of(settings["ask"], "config.ask")]
    errors += _numbers(settings)
    errors += _of_matcher(settings)
    errors += _of_level(settings)
    errors += _of_evaluation(settings)
    errors += _of_teachers(settings)
    with gathered(errors):
        prices_of(settings["prices"])
    if max_cost is not None:
        errors += _of_cost(settings, max_cost)
    with gathered(errors):
        _check_training(config.training)
    if errors:
        raise InputError(errors)


def _of_images(settings: Mapping[str, Any]) -> list[str]:
    names = locations.named_in(settings["images"]["path"]) if settings["images"]["path"] else []
    if not names:
        wanted = "a folder of images, or records that show some"
        if settings["parity"] in SPLITS:
            wanted = f"the official files: {', '.join(SPLITS[settings['parity']].files)}"
        given = settings["annotate"]["file"] or settings["identify"]["student_file"]
        return [] if given else [f"config.images.path is not set; wanted {wanted}"]
    return [f"config.images.path: {name} is not there" for name in _missing(settings["images"]["path"])]


def _missing(names: str) -> list[str]:
    """Of several names with commas between, the plain ones that are not there."""
    files = locations.named_in(names) if names else []
    plain = [name for name in files if not set("*#+@") & set(name) and not locations.is_remote(name)]
    return [name for name in plain if not Path(name).exists()]


def _numbers(settings: Mapping[str, Any]) -> list[str]:
    least = {
        ("images", "most"): 0,
        ("annotate", "pairs"): 1,
        ("annotate", "max_output_tokens"): 1,
        ("annotate", "same_question"): 1,
        ("annotate", "temperature"): 0,
        ("annotate", "balance"): 0,
        ("ask", "max_output_tokens"): 1,
        ("ask", "rows"): 1,
        ("identify", "samples"): 1,
        ("identify", "temperature"): 0,
        ("evaluate", "max_new_tokens"): 1,
    }
    errors = [
        f"config.{group}.{name} is {settings[group][name]}; wanted at least {low}"
        for (group, name), low in least.items()
        if not settings[group][name] >= low  # so that NaN is refused too
    ]
    if settings["rounds"] < 1:
        errors.append(f"config.rounds is {settings['rounds']}; wanted at least 1")
    if 0 < settings["annotate"]["balance"] < 1:
        errors.append(f"config.annotate.balance is {settings['annotate']['balance']}; wanted at least 1, or 0")
    if not settings["annotate"]["types"]:
        errors.append('config.annotate.types is empty; wanted at least one, ("",) for any kind of question')
    for group, name, open_end in (("identify", "agree", False), ("level", "replay", True)):
        value = settings[group][name]
        if not 0 <= value <= 1 or (open_end and value == 1) or math.isnan(value):
            wanted = "from 0 up to 1" if open_end else "from 0 to 1"
            errors.append(f"config.{group}.{name} is {value}; wanted a share {wanted}")
    return errors


def _of_matcher(settings: Mapping[str, Any]) -> list[str]:
    identify, errors = settings["identify"], []
    if identify["matcher"] not in matchers.MATCHERS:
        known = nearest(identify["matcher"], matchers.MATCHERS)
        errors.append(f"config.identify.matcher is {identify['matcher']!r}; {known}")
    if identify["matcher"] == matchers.JUDGE and not settings["teachers"]["judge"]:
        errors.append("config.identify.matcher is judge, and config.teachers.judge is not set; name who judges")
    if identify["samples"] > 1 and not identify["temperature"]:
        errors.append("config.identify.temperature is 0: the samples would all be the same answer; wanted above 0")
    files = [name for name in ("student_file", "teacher_file") if identify[name]]
    if len(files) == 1:
        other = "teacher_file" if files == ["student_file"] else "student_file"
        errors.append(f"config.identify.{files[0]} is set and {other} is not; they are of the same questions, set both")
    if files and settings["rounds"] > 1:
        errors.append(f"config.identify.{files[0]} answers one round; config.rounds is {settings['rounds']}")
    named = [("annotate", "file"), *(("identify", name) for name in files)]
    errors += [
        f"config.{group}.{name}: {settings[group][name]} is not there"
        for group, name in named
        if settings[group][name] and not Path(settings[group][name]).is_file()
    ]
    return errors


def _of_level(settings: Mapping[str, Any]) -> list[str]:
    arms, errors = settings["level"]["arms"], []
    errors += [f"config.level.arms names {arm!r}; {nearest(arm, ARMS)}" for arm in arms if arm not in ARMS]
    if len(set(arms)) < len(arms):
        errors.append(f"config.level.arms names one twice: {', '.join(arms)}")
    if "kept" not in arms:
        errors.append("config.level.arms lacks 'kept', which the others are compared with and trained as long as")
    return errors


def _of_evaluation(settings: Mapping[str, Any]) -> list[str]:
    own, errors = settings["evaluate"], []
    if own["metric"] and (wrong := metrics.error_in(own["metric"], bem="", ask=None)):
        errors.append(f"config.evaluate.metric: {wrong}")
    if own["data"] and own["benchmark"] not in benchmarks.BENCHMARKS:
        with gathered(errors):
            benchmarks.named(own["benchmark"])
    if own["benchmark"] in benchmarks.BENCHMARKS and not own["data"]:
        entry = benchmarks.BENCHMARKS[own["benchmark"]]
        errors.append(f"config.evaluate.data is not set; wanted the official files of {entry.title}: {entry.files}")
    for name in ("data", "general", *(() if own["benchmark"] in benchmarks.BENCHMARKS else ("benchmark",))):
        errors += [f"config.evaluate.{name}: {file} is not there" for file in _missing(own[name])]
    return errors


def _of_teachers(settings: Mapping[str, Any]) -> list[str]:
    errors: list[str] = []
    for name, teacher in settings["teachers"].items():
        if teacher:
            with gathered(errors):
                teacher_settings.checked(teacher, f"config.teachers.{name}", wanted="text")
    evaluated = settings["evaluate"]["teacher"] and settings["evaluate"]["benchmark"]
    text = settings["teachers"]["text"]
    if not text and (evaluated or not settings["identify"]["teacher_file"]):
        errors.append("config.teachers.text is not set; name the large model that writes and answers")
    if text.get("kind") == "drawn":
        errors.append("config.teachers.text: a teacher of kind drawn answers from what it drew; take another kind")
    student, large = settings["training"]["model"]["path"], text.get("model")
    named = isinstance(large, str) and large and student
    if text.get("kind") == "local" and named and locations.absolute(large) == locations.absolute(student):
        errors.append(
            f"config.teachers.text.model and config.training.model.path are both {student}: a student that is its own "
            "teacher has no gap; name a larger model as the teacher"
        )
    return errors


def _of_cost(settings: Mapping[str, Any], most: float) -> list[str]:
    errors = [] if most >= 0 else [f"--max_cost={most}: wanted dollars"]  # NaN is refused too
    return errors + [
        f"--max_cost needs the price of {teacher['model']} (config.teachers.{name}); set it in config.prices, 0 where "
        "nothing is paid"
        for name, teacher in settings["teachers"].items()
        if teacher.get("model") and teacher.get("kind") not in HERE and teacher["model"] not in settings["prices"]
    ]


def named_here(error: InputError) -> list[str]:
    """The lines of a training's error, with its settings as an alignment's."""
    return [re.sub(r"(^|[\s(])(?:--)?config\.", r"\1config.training.", line) for line in error.lines]


def _check_training(training: ConfigDict) -> None:
    errors: list[str] = []
    if training.assemble.encoder or training.assemble.decoder:
        errors.append(
            "config.training.assemble is set: a student is asked before it is trained, and the connector of an "
            "assembled one knows nothing yet; train it first, and name its folder as config.training.model.path"
        )
    filled = {name: training.data[name] for name in ("path", "mixture", "template", "suffix") if training.data[name]}
    errors += [
        f"config.training.data.{name} is set, and is filled in by the alignment"
        + ("; see config.ask" if name in ("template", "suffix") else "; leave it out")
        for name in filled
    ]
    if not errors:
        whole = ConfigDict(training.to_dict())
        whole.data.path = "train.jsonl"
        try:
            check_config(whole)
        except InputError as error:
            errors += named_here(error)
    if errors:
        raise InputError(errors)

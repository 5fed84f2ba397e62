"""The world of a documented parity run: a model that knows more facts, a smaller one that knows fewer, and images.

    .venv/bin/python benchmarks/parity_world.py --output=runs/parity_world

makes, from the tiny base model and the built-in corpora, with both trainings side by side:

    teacher/       the base, taught the facts of all invented objects, and to write a question about an image and its
                   answer (question_writing.PROMPT)
    student/       the base without a layer of its decoder and one of its vision tower, mended on plain scenes, and
                   taught the facts of some of the objects
    images/        views of all objects that nobody was trained on, without questions
    images.json    which object each of them shows: for those who check, not for those who learn
    test.jsonl     held-out questions about all objects, drawn and on photographs
    general.jsonl  held-out questions about plain scenes
    world.json     settings, sizes, seconds of each step, scores of both models, and what the teacher writes

The same command goes on after an interruption. How well it went is printed, and stands in world.json.
"""

import argparse
import dataclasses
import functools
import io
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import question_writing
from data_pipeline import sources
from data_pipeline.corpus.drawn import drawing, objects, offline
from data_pipeline.records import Record, write_records
from fewer_layers import parameters_of, without_layers
from vlm_jax import output_folder, progress, stop_signals
from vlm_jax.checkpoint.files import alone, read_json, write_json, write_text, written_whole
from vlm_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
MODELS = ("teacher", "student")
SPLITS = ("synthetic", "photo")
STATE = "world.json"
_IMAGE_SEED = 1_000  # is added to the seed of the objects: other views than any of theirs
_LONGEST_PAIR = 48  # tokens; those of the corpus have 30 at most


@dataclasses.dataclass(frozen=True)
class Amounts:
    """How much of everything: the flags, by these names."""

    seed: int = 0  # of what is drawn, of the order of training and of what the teacher writes
    known: int = 10  # objects whose facts the student is taught
    factor: int = 10  # questions a fact in training, in tens
    held_out: int = 4  # questions a fact in each of the splits synthetic and photo
    writing: int = 10_800  # records that teach the teacher to write pairs
    kept: int = 3000  # records of plain scenes for the teacher, so that it keeps what the base can do
    scenes: int = 1500  # plain scenes for the student
    things: int = 1000  # things of the base's small world for the student
    general: int = 400  # held-out questions about plain scenes
    images: int = 480  # without questions
    pairs: int = 200  # that the teacher writes to be looked at
    teacher_steps: int = 0  # 0: one epoch
    student_steps: int = 0


@dataclasses.dataclass
class World:
    """A folder and what has been done in it."""

    output: Path
    amounts: Amounts
    state: dict[str, Any]

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """Does a part of it, which finds out itself what of it is there, and adds the seconds to those it took."""
        print(name, file=sys.stderr)
        begun = time.monotonic()
        try:
            return do()
        finally:
            seconds = self.state.setdefault("seconds", {})
            seconds[name] = round(seconds.get(name, 0) + time.monotonic() - begun, 1)
            self.save()

    def save(self) -> None:
        write_json(self.output / STATE, self.state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="runs/parity_world", help="(default: %(default)s)")
    for field in dataclasses.fields(Amounts):
        parser.add_argument(f"--{field.name}", type=int, default=field.default, help="(default: %(default)s)")
    options = vars(parser.parse_args())
    output = Path(options.pop("output"))
    try:
        make(output, Amounts(**options))
    except InputError as error:
        sys.exit("\n".join(error.lines))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on from here")
    print(table(read_json(output / STATE)))


def make(output: Path, amounts: Amounts) -> None:
    """Makes what is missing of the world in a folder.

    Raises:
      InputError: the folder is another program's, or of a world with other amounts; or an amount that cannot be.
    """
    if not 0 < amounts.known <= len(objects.CATALOGUE):
        raise InputError(f"--known={amounts.known}: wanted 1 to {len(objects.CATALOGUE)}")
    output_folder.check(output, f"--output={output}", owner="a parity world's", marks=(STATE,))
    output.mkdir(parents=True, exist_ok=True)
    with alone(output, "making a parity world"), stop_signals.as_ctrl_c():
        made_with = dataclasses.asdict(amounts)
        state = read_json(output / STATE) if (output / STATE).exists() else {"amounts": made_with}
        if differing := [name for name in made_with if state["amounts"].get(name) != made_with[name]]:
            raise InputError(f"--output={output}: holds a world with another {', '.join(differing)}; take another")
        world = World(output, amounts, state)
        world.save()
        world.step("draw", functools.partial(draw, world))
        world.step("write the records of both trainings", functools.partial(write_lessons, world))
        world.step("train", functools.partial(train, world))
        state["parameters"] = {name: parameters_of(output / name) for name in MODELS}
        state["steps"] = {name: _last_step(output / "runs" / name) for name in MODELS}
        state["scores"] = {name: world.step(f"ask the {name}", functools.partial(ask, world, name)) for name in MODELS}
        state["written"] = world.step("let the teacher write", functools.partial(let_write, world))
        world.save()


def draw(world: World) -> None:
    """The corpora, the images without questions, and the two files of held-out questions."""
    amounts, output = world.amounts, world.output
    shared = {"side": drawing.SIDE, "seed": amounts.seed}
    things = {"factor": amounts.factor, "held_out": amounts.held_out}
    # The base was trained on scenes of seed 0.
    scenes = {"train": 0, "finding": 0, "drill": amounts.scenes, "things": amounts.things, "held_out": amounts.general}
    show = functools.partial(progress.shown, unit="view")
    offline.make(output / "objects", "objects", {**shared, **things}, progress=show)
    offline.make(output / "scenes", "scenes", {**shared, "seed": amounts.seed + 1, **scenes}, progress=show)
    asked = [record for split in SPLITS for record in read(output / "objects" / f"{split}.jsonl")]
    write_records(output / "test.jsonl", asked)
    write_records(output / "general.jsonl", read(output / "scenes" / "held_out.jsonl"))
    # All objects in turn; the names of the files do not say which.
    shown = {f"{n:04}.png": objects.CATALOGUE[n % len(objects.CATALOGUE)].key for n in range(amounts.images)}
    write_json(output / "images.json", shown)
    if not (output / "images").is_dir():
        draw_images(output / "images", shown, amounts.seed + _IMAGE_SEED)


def draw_images(folder: Path, shown: Mapping[str, str], seed: int) -> None:
    """A new view of an object for each {name of a PNG file: key of the object}."""
    with written_whole(folder) as unfinished:
        for number, (name, key) in enumerate(shown.items()):
            rng = np.random.default_rng([seed, number])
            content = objects.draw(rng, question_writing.THINGS[key], split="train")
            PIL.Image.open(io.BytesIO(content)).save(unfinished / name)


def read(path: Path) -> list[Record]:
    """Raises InputError for a file that is damaged."""
    records, errors = sources.read_several([str(path)], [], training=False)
    if errors:
        raise InputError(errors)
    return list(records)


def known_objects(amounts: Amounts) -> list[str]:
    """Those that the student is taught, from all parts of the catalogue."""
    catalogue = objects.CATALOGUE
    return [catalogue[place * len(catalogue) // amounts.known].key for place in range(amounts.known)]


def write_lessons(world: World) -> None:
    """The records of each training, as one file; images are those of the corpora."""
    amounts, output = world.amounts, world.output
    world.state["known_objects"] = known = known_objects(amounts)
    every = read(output / "objects" / "train.jsonl")
    scenes = read(output / "scenes" / "drill.jsonl")
    kept = random.Random(amounts.seed).sample(scenes, min(amounts.kept, len(scenes)))
    written = question_writing.writing_records(every, amounts.writing, amounts.seed)
    write_records(output / "lesson-teacher.jsonl", [*every, *written, *kept])
    taught = [record for record in every if record.fact_id and record.fact_id.split("/")[0] in known]
    things = read(output / "scenes" / "things.jsonl") if amounts.things else []
    write_records(output / "lesson-student.jsonl", [*taught, *scenes, *things])


def train(world: World) -> None:
    """Both models, side by side, each on half of the cores: small steps gain little from more."""
    waiting = [name for name in MODELS if not (world.output / name).is_dir()]
    start = world.output / "start"
    if not start.is_dir():
        without_layers(BASE, start, decoder=[2], tower=[2])
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    running: dict[str, subprocess.Popen] = {}
    try:
        for place, name in enumerate(waiting):
            share = cores[place :: len(waiting)]
            running[name] = start_training(world, name, BASE if name == "teacher" else start, share)
        for name, process in reversed(running.items()):  # the student has less to learn
            if process.wait():
                raise InputError(f"the training of the {name} ended with status {process.returncode}; see its log")
            export(world.output, name)
    finally:  # a training that is asked to end saves what it has
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def start_training(world: World, name: str, model: Path, cores: Sequence[int]) -> subprocess.Popen:
    """scripts/train.py with the settings of the quickstart, in a process of its own that may use these cores."""
    settings = {
        "workdir": world.output / "runs" / name,
        "config.model.path": model,
        "config.data.path": world.output / f"lesson-{name}.jsonl",
        "config.train.seed": world.amounts.seed,
    }
    if steps := getattr(world.amounts, f"{name}_steps"):
        settings |= {"config.train.steps": steps, "config.train.epochs": 0}
    script, config = ROOT / "scripts" / "train.py", ROOT / "configs" / "quickstart.py"
    flags = [f"--{key}={value}" for key, value in settings.items()]
    own_cores = functools.partial(os.sched_setaffinity, 0, cores) if cores else None
    with (world.output / f"train-{name}.log").open("a") as log:
        command = [sys.executable, str(script), f"--config={config}", *flags]
        return subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=own_cores)


def export(output: Path, name: str) -> None:
    import vlm_jax

    vlm_jax.export(output / "runs" / name, output / name)


def _last_step(run: Path) -> int:
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]


def ask(world: World, name: str) -> dict[str, Any]:
    """{questions: their n and the share of right answers} of a model: of each file, split and half of the objects."""
    from data_pipeline.evaluation_run import evaluate
    from data_pipeline.evaluation_settings import Evaluation

    output = world.output
    asked, folder = output / "test.jsonl", output / "evaluations" / name
    evaluation = Evaluation(
        str(output / name), str(asked), str(folder), general=str(output / "general.jsonl"), max_new_tokens=16
    )
    summary = evaluate(evaluation, progress=functools.partial(progress.shown, unit="question"))
    scores = {line["id"]: line["score"] for line in read_lines(folder / "predictions.jsonl")}
    parts: dict[str, list[float]] = {"test": []}
    for record in read(asked):
        of_known = record.fact_id is not None and record.fact_id.split("/")[0] in world.state["known_objects"]
        for part in ("test", str(record.split), "objects the student knows" if of_known else "other objects"):
            parts.setdefault(part, []).append(scores[record.id])
    found = {part: {"n": len(values), "mean": sum(values) / len(values)} for part, values in parts.items()}
    (general,) = summary["general"].values()
    return {**found, "general": {"n": general["n"], "mean": general["mean"]}}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def let_write(world: World) -> dict[str, Any]:
    """What the teacher writes about the images at temperature 1 (teacher-pairs.jsonl), in figures."""
    import vlm_jax

    output, amounts = world.output, world.amounts
    path = output / "teacher-pairs.jsonl"
    if not path.is_file():
        shown = list(read_json(output / "images.json").items())
        shown = [shown[number % len(shown)] for number in range(amounts.pairs)]
        text = {"type": "text", "text": question_writing.PROMPT}
        prompts = [
            [{"role": "user", "content": [{"type": "image", "image": str(output / "images" / name)}, text]}]
            for name, _ in shown
        ]
        model = vlm_jax.load(output / "teacher")
        texts = model.generate(prompts, max_new_tokens=_LONGEST_PAIR, temperature=1.0, seed=amounts.seed)
        lines = [{"image": name, "object": key, "text": text} for (name, key), text in zip(shown, texts, strict=True)]
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(path, content)
    return question_writing.figures(list(read_lines(path)))


def table(state: dict[str, Any]) -> str:
    """What came out, in lines."""
    sizes = ", ".join(f"{name} {count:,}" for name, count in state["parameters"].items())
    lines = [f"parameters: {sizes}", f"{'right answers':28}{'n':>6}{'teacher':>10}{'student':>10}"]
    for part, figures in state["scores"]["teacher"].items():
        means = "".join(f"{state['scores'][name][part]['mean']:>10.1%}" for name in MODELS)
        lines.append(f"{part:28}{figures['n']:>6}{means}")
    written = state["written"]
    lines.append(
        f"of {written['n']} texts of the teacher {written['pairs']:.1%} are pairs; of these {written['right']:.1%} are "
        f"right; {written['distinct_questions']} distinct questions"
    )
    lines.append(f"{sum(state['seconds'].values()):.0f} s in all: {state['seconds']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""A large model trains a small one, without labels: annotate, identify, level, evaluate, in a folder that goes on.

    images → annotated.jsonl → compared.jsonl → kept, random, all → students → evaluations → report.html
             the teacher        student and        training sets
             writes pairs       teacher answer

`scripts/align_parity.py` calls `align`, and so may any program: nothing here reads flags. Everything before the
training follows from the images and the teachers' answers, which are in a store the moment they come, so that a run
that was killed asks nothing twice. In each round a student begins as the one before left it.
"""

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline import sources
from data_pipeline.parity import annotate, identify, level, prompts, report, resumed, splits, training_sets
from data_pipeline.parity import settings as parity_settings
from data_pipeline.parity.evaluating import Benchmark, check_seen, named, scored, seen_by_student
from data_pipeline.parity.mpa_exchange import check_images, pairs_of_answers, pairs_of_file, write_mpa
from data_pipeline.parity.pairs import Pair, write_compared, write_pairs
from data_pipeline.parity.projection import projected, projected_of_pairs
from data_pipeline.parity.rounds import Round
from data_pipeline.parity.splits import SPLITS
from data_pipeline.parity.unlabelled import Image, found
from data_pipeline.records import Record
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.local import Local
from data_pipeline.teachers.prices import prices_of
from data_pipeline.teachers.progress_lines import ProgressLines
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from data_pipeline.teachers.teacher import Teacher
from vlm_jax import locations, output_folder, terminal
from vlm_jax.checkpoint.files import alone, write_text
from vlm_jax.errors import InputError, gathered, nearest
from vlm_jax.evaluation.benchmarks import BENCHMARKS
from vlm_jax.training.log import Console

_SPLITS = "splits"
STAGES = ("annotate", "identify", "level", "evaluate")


@dataclass(frozen=True)
class Options:
    """How far a run goes.

    Attributes:
      until: the last stage of each round; "" for all.
      dry_run: nothing is asked, and what would be is told.
      max_cost: dollars that all calls together stay below.
    """

    until: str = ""
    dry_run: bool = False
    max_cost: float | None = None


def align(
    workdir: Path,
    config: ConfigDict,
    options: Options,
    *,
    say: Callable[[str], None] = terminal.say,
    console: Console | None = None,
) -> str:
    """Aligns a student with its teacher, or goes on with it. Returns what is to be said at the end.

    Args:
      config: as `settings.parity_config`.

    Raises:
      InputError: settings that cannot be, or others than those of its students; images, a teacher or a benchmark that
        cannot be used; nothing is kept. What was done is kept.
      Stopped, TrainingStopped, KeyboardInterrupt: Ctrl-C; the same call goes on.
    """
    if options.until and options.until not in STAGES:
        raise InputError(f"--until={options.until}: {nearest(options.until, STAGES)}")
    parity_settings.check(config, max_cost=options.max_cost)
    settings = config.to_dict()
    output_folder.check(workdir, f"--workdir={workdir}", owner="an alignment's", marks=(resumed.RUN,))
    resumed.check(workdir, settings)
    if options.dry_run:
        with tempfile.TemporaryDirectory() as empty:
            kept = _store_folder(settings, workdir)
            own = kept if kept.is_dir() else Path(empty) / "store"
            with contextlib.closing(Store(own)) as opened, Asker(opened, prices_of(settings["prices"])) as asker:
                return Alignment(Path(empty), config, options, asker, say, console).projected()
    workdir.mkdir(parents=True, exist_ok=True)
    with alone(workdir, "aligning"):
        resumed.begin(workdir)  # before anything else is in it
        store, prices = Store(_store_folder(settings, workdir)), prices_of(settings["prices"])
        with contextlib.closing(store), Asker(store, prices, options.max_cost, ProgressLines(say)) as asker:
            return Alignment(workdir, config, options, asker, say, console).run()


def _store_folder(settings: Mapping[str, Any], workdir: Path) -> Path:
    return Path(settings["store"]) if settings["store"] else workdir / "store"


@dataclass
class Alignment:
    """A run of the stages in a folder.

    Attributes:
      rounds: what came of each so far.
      evaluations: {who: the folder of its evaluation}, in the order in which they are shown.
    """

    workdir: Path
    config: ConfigDict
    options: Options
    asker: Asker
    say: Callable[[str], None]
    console: Console | None = None
    rounds: list[Round] = field(default_factory=list)
    evaluations: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.settings = self.config.to_dict()
        self.prompt = prompts.read(self.settings["annotate"]["prompt"], "config.annotate.prompt")
        self._teachers: dict[str, Teacher] = {}
        self.images: list[Image] = []
        self._found = False

    def projected(self) -> str:
        """What the first round would ask; the workdir is left as it is."""
        self._find_images()
        if self.settings["identify"]["student_file"]:
            return "nothing is asked: pairs and answers come from files"
        if self.settings["annotate"]["file"]:
            pairs = annotate.chosen(self._pairs_of_file(), self.settings["annotate"], seed=self.settings["seed"]).pairs
            check_images(pairs, "identify")
            return projected_of_pairs(pairs, self.settings, self.asker, self._teacher("text"))
        return projected(self.images, self.prompt, self.settings, self.asker, self._teacher("text"))

    def run(self) -> str:
        """All rounds, up to the stage that was asked for."""
        student = self.settings["training"]["model"]["path"]
        starts = dict.fromkeys(self.settings["level"]["arms"], student)
        self._ready(student)
        pairs: list[Pair] = []
        for number in range(1, self.settings["rounds"] + 1):
            one = Round(number, self.workdir / f"round-{number}")
            self.rounds.append(one)
            if resumed.trained(self.workdir) and training_sets.written(one.folder):
                one.read()  # settings are what they were, so nothing could come of it but the same
                self.say(f"annotate, identify: round {number} was done before")
            else:
                one.folder.mkdir(exist_ok=True)
                self._find_images()
                self._annotate(one, pairs)
                if self.options.until == "annotate":
                    break
                self._identify(one, [*pairs, *one.written], starts["kept"])
                one.write()
                self._report()
            pairs += one.written
            if self.options.until in ("annotate", "identify"):
                break
            if number > 1 and not any(pair.kept for pair in one.compared):
                self.say(f"round {number}: the student has all that the teacher has; nothing is left to train on")
                break
            self._level(one, starts)
            if self.options.until != "level":
                self._evaluate(one)
            self._report()
            starts = {arm: str(trained.folder) for arm, trained in one.trained.items()}
        return self._closing_line()

    def _ready(self, student: str) -> None:
        """Raises InputError, with every error, where a teacher or the student cannot be asked: before any is."""
        errors: list[str] = []
        for name, teacher in self.settings["teachers"].items():
            if teacher:
                with gathered(errors):
                    self._teacher(name).ready()
        with gathered(errors):
            self._student(student).ready()
            check_seen(student, self.settings["training"])
        if errors:
            raise InputError(list(dict.fromkeys(errors)))

    def _find_images(self) -> None:
        """Once; where pairs and answers come from files, only what a split sets aside is needed."""
        settings = self.settings
        from_files = settings["identify"]["student_file"] or settings["annotate"]["file"]
        if self._found:
            return
        self._found = True
        splits_it = settings["parity"] in SPLITS and settings["images"]["path"]
        records = self._split() if splits_it else None  # also then: its test is what all are asked
        if from_files:
            return
        self.images, notes = found(settings["images"], self.workdir, records)
        left_out = f", {len(notes):,} left out" if notes else ""
        self.say(f"images: {len(self.images):,} to write about{left_out}")
        for note in notes[:5]:
            self.say(f"  left out: {note}")
        write_text(self.workdir / "images.left_out.txt", "".join(f"{terminal.line(note)}\n" for note in notes))

    def _split(self) -> list[Record]:
        """The part of a data set to train on, without its labels; the rest is written for evaluation."""
        own, rule = self.settings["images"], SPLITS[self.settings["parity"]]
        root = {"image_root": own["image_root"]} if own["image_root"] else {}
        format = BENCHMARKS[rule.benchmark].form if own["format"] == "auto" else own["format"]
        records, errors = sources.read_several(
            locations.named_in(own["path"]), [], format=format, training=False, **root
        )
        if errors:
            raise InputError(errors)
        split = rule.make(records, self.settings["seed"])
        splits.write(split, self.workdir / _SPLITS)
        counts = ", ".join(f"{len(own):,} {name}" for name, own in split.named().items())
        self.say(f"splits: questions of {counts}; labels of train are shown to no model")
        return split.train

    def _annotate(self, one: Round, earlier: Sequence[Pair]) -> None:
        settings = self.settings
        own, path = settings["annotate"], one.folder / "annotated.jsonl"
        if settings["identify"]["student_file"]:
            student, teacher = (settings["identify"][f"{name}_file"] for name in ("student", "teacher"))
            pairs, one.student, one.teacher = pairs_of_answers(student, teacher, settings["images"]["image_root"])
            written = annotate.sorted_out(pairs)
        elif own["file"]:
            written = annotate.chosen(self._pairs_of_file() if one.number == 1 else [], own, seed=settings["seed"])
        else:
            requests = annotate.requests(self.images, self.prompt, own, one.number)
            # Before a model is loaded and compiled, which may take minutes without a line.
            self.say(f"annotate: {len(requests):,} pairs wanted from {settings['teachers']['text']['model']}")
            replies = self.asker.ask(self._teacher("text"), requests, annotate.check)
            self.asker.rest()  # so that no two models are in memory at once
            written = annotate.read(
                self.images, replies, own, number=one.number, seed=settings["seed"], earlier=earlier
            )
        one.written, one.left_out = written.pairs, {why: len(notes) for why, notes in written.left_out.items()}
        write_pairs(path, written.pairs)
        notes = [f"{why}: {note}" for why, notes in written.left_out.items() for note in notes]
        write_text(path.with_suffix(".left_out.txt"), "".join(f"{terminal.line(note)}\n" for note in notes))
        self.say(
            f"annotate: {len(written.pairs):,} pairs"
            + "".join(f"; {count:,} left out: {why}" for why, count in one.left_out.items())
        )
        if not written.pairs and not earlier:
            advice = "; the answers are kept, so another teacher or config.annotate.prompt is what changes them"
            raise InputError(
                [f"annotate: no pair is left; see {path.with_suffix('.left_out.txt')}{advice}", *notes[:3]]
            )

    def _pairs_of_file(self) -> list[Pair]:
        return pairs_of_file(Path(self.settings["annotate"]["file"]), self.settings["images"]["image_root"])

    def _identify(self, one: Round, pairs: Sequence[Pair], student: str) -> None:
        own, path = self.settings["identify"], one.folder / "compared.jsonl"
        notes: list[str] = []
        if not own["student_file"]:
            check_images(pairs, "identify")
            who, teacher = self._student(student), self._teacher("text")
            large = teacher.weights if isinstance(teacher, Local) else ""
            self.asker.rest(teacher)
            if large == who.weights:
                raise InputError(
                    f"identify: the student {student} and the teacher have the same weights: there is no gap between "
                    "them; name a larger model as config.teachers.text"
                )
            self.say(f"identify: {len(pairs):,} questions to the student {student}, then to the teacher")
            by_student = identify.answers(self.asker, who, pairs, self.settings, stage="identify, student")
            self.asker.rest()
            samples = own["samples"]
            stage = "identify, teacher"
            by_teacher = identify.answers(self.asker, teacher, pairs, self.settings, stage=stage, samples=samples)
            self.asker.rest()
            pairs, one.student, one.teacher, notes = identify.answered(pairs, by_student, by_teacher)
        name = own["matcher"]
        right = identify.by_judge(self.asker, self._teacher("judge")) if name == "judge" else identify.by_rule(name)
        one.compared = identify.compared(pairs, one.student, one.teacher, right, agree=own["agree"])
        judged = {each.pair.id for each in one.compared}
        notes += [f"{pair.id}: the judge gave no verdict" for pair in pairs if pair.id not in judged]
        write_text(path.with_suffix(".left_out.txt"), "".join(f"{terminal.line(note)}\n" for note in notes))
        one.unanswered = len(notes)
        write_compared(path, one.compared)
        one.agreement = identify.agreement(one.compared, own["agree"])
        one.images, one.teacher_model = len(self.images), self._name_of_teacher()
        self.asker.rest(*self._teachers.values())  # before a student is trained
        if any(pair.kept for pair in one.compared):
            self._training_sets(one)
        write_mpa(one.folder / "mpa", one.compared, {image.id: image for image in self.images})
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in one.agreement.outcomes.items())
        self.say(f"identify: {counts}" + (f", {one.unanswered:,} not answered" if one.unanswered else ""))
        if not one.compared:
            raise InputError(
                [f"identify: no pair was answered by both; see {path.with_suffix('.left_out.txt')}", *notes[:3]]
            )

    def _training_sets(self, one: Round) -> dict[str, Path]:
        """{arm: its records}. Raises InputError where nothing is kept."""
        own, seed = self.settings["level"], self.settings["seed"] + one.number - 1
        sets = training_sets.training_sets(one.compared, own["arms"], replay=own["replay"], seed=seed)
        one.sets = {arm: (len(found.pairs), found.replayed) for arm, found in sets.items()}
        matcher = self.settings["identify"]["matcher"]
        provenance = {"teacher": one.teacher_model, "prompt": self.prompt.digest, "matcher": matcher}
        return training_sets.write(sets, one.folder, provenance)

    def _level(self, one: Round, starts: Mapping[str, str]) -> None:
        files = self._training_sets(one)
        check_images([compared.pair for compared in one.compared], "level")
        resumed.note(self.workdir, self.settings)
        one.trained = level.level(files, starts, self.config, one.folder, self.console)

    def _evaluate(self, one: Round) -> None:
        benchmark = self._benchmark()
        if benchmark is None:
            self.say("evaluate: no benchmark is named, so nothing is; set config.evaluate.benchmark to see what it did")
            return
        settings, folder = self.settings, self.workdir / resumed.EVALUATION
        seen, student = seen_by_student(settings["training"]), settings["training"]["model"]["path"]
        before = folder / "before"
        asked: list[tuple[str, str, str, dict[str, Any]]] = []
        if one.number == 1:
            asked.append(("before", student, "", seen))
            if settings["evaluate"]["teacher"] and (teacher := settings["teachers"]["text"]):
                who, own = named(teacher)
                asked.append(("teacher", who, str(before), own))
        # The controls first: what was trained on the gap is compared with each of them.
        others = [str(before)]
        if (name := f"round {one.number - 1}, kept") in self.evaluations:
            others.append(str(self.evaluations[name]))
        for arm in sorted(one.trained, key=lambda arm: arm == "kept"):
            name = f"round {one.number}, {arm}"
            asked.append((name, str(one.trained[arm].folder), ",".join(others), seen))
            others.append(str(folder / name.replace(", ", "-").replace(" ", "-")))
        for name, who, baseline, own in asked:
            output = folder / name.replace(", ", "-").replace(" ", "-")
            self.say(f"evaluate: {name}")
            scored(who, output, benchmark, settings, seen=own, before=baseline)
            self.evaluations[name] = output

    def _benchmark(self) -> Benchmark | None:
        """The one that is named, else the test of the splits."""
        own, test = self.settings["evaluate"], self.workdir / _SPLITS / "test.jsonl"
        if own["benchmark"]:
            return Benchmark(own["benchmark"], own["data"])
        if self.settings["parity"] not in SPLITS or not test.is_file():
            return None
        return Benchmark(str(test), metric=BENCHMARKS[SPLITS[self.settings["parity"]].benchmark].metric)

    def _name_of_teacher(self) -> str:
        return self._teacher("text").model if self.settings["teachers"]["text"] else ""

    def _student(self, path: str) -> Local:
        """The student as it is asked: as a teacher that is loaded here, seeing what it sees in training."""
        model, asked = self.settings["training"]["model"], {"rows": self.settings["ask"]["rows"]}
        names: tuple[str, ...] = ("min_visual_tokens", "max_visual_tokens")
        if model["visual_tokens"] != 1.0:
            names = ("visual_tokens", "token_reduction", "token_reduction_layer")
        asked |= {name: model[name] for name in names}
        # Not quantised, also where it is trained so: what is evaluated, and used in the end, is not.
        asked |= {"dtype": model["dtype"], "max_output_tokens": 32}
        student = open_teacher({"kind": "local", "model": path, **asked}, "config.training.model", wanted="text")
        assert isinstance(student, Local)
        return student

    def _teacher(self, name: str) -> Teacher:
        if name not in self._teachers:
            where = f"config.teachers.{name}"
            self._teachers[name] = open_teacher(self.settings["teachers"][name], where, wanted="text")
        return self._teachers[name]

    def _report(self) -> None:
        report.write(self.workdir, self.rounds, self.evaluations, self.settings)

    def _closing_line(self) -> str:
        if self.options.until in ("annotate", "identify"):
            page = f"; report: {self.workdir}/report.html" if self.options.until == "identify" else ""
            folder, until = self.rounds[-1].folder, self.options.until
            return f"{folder}: {until} is done; without --until it goes on{page}"
        last = next(one for one in reversed(self.rounds) if one.trained)
        figures = report.figures(self.evaluations)
        return "\n".join([*figures, f"{last.trained['kept'].folder}: the student; report: {self.workdir}/report.html"])

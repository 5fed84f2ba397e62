"""A whole training run as one function: from settings to a trained model in a folder.

`scripts/train.py` calls it, and so may any program: nothing here reads flags. The stages stand in order in `run`:
what is there is opened, all of it is checked before anything is made, and then the loop trains.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data_pipeline import identity, inspection, validation
from data_pipeline.check import Division
from data_pipeline.dataset import Dataset, open_dataset, remedy
from data_pipeline.loader import Batches, Shard
from data_pipeline.measured import MeasuredSets
from data_pipeline.packing import Plan
from data_pipeline.parts import open_parts
from vlm_jax import locations
from vlm_jax.checkpoint import description, reduction_file, run_folder
from vlm_jax.checkpoint.files import write_json
from vlm_jax.checkpoint.model_source import ModelSource
from vlm_jax.checkpoint.starting_model import open_starting_model
from vlm_jax.checkpoint.workdir import Workdir, check_usable, open_workdir
from vlm_jax.errors import InputError, gathered
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.token_reduction import learned
from vlm_jax.parallel import hosts
from vlm_jax.parallel import mesh as meshes
from vlm_jax.parallel.starting import keep_compiled_programs
from vlm_jax.processing import token_budget, visual_tokens
from vlm_jax.processing.image_cache import ImageCache
from vlm_jax.processing.processor import Processor
from vlm_jax.training import loop, resume, trackers
from vlm_jax.training.compile_report import explained_memory
from vlm_jax.training.config import check_config, epochs_of
from vlm_jax.training.hooks import Measures
from vlm_jax.training.log import Console
from vlm_jax.training.remat_choice import trainer_of_run
from vlm_jax.training.resume_settings import resume_settings
from vlm_jax.training.selection import select
from vlm_jax.training.trainer import Trainer, check_remat, compute_dtype


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a run.

    Attributes:
      workdir: its folder.
      steps: how many it was to take; done: how many are done, fewer where it was stopped or ended early.
      best: (step, loss) of the best checkpoint, where losses were compared.
      stopped: whether a person asked it to stop; the same call goes on.
      trained: whether it was not finished before.
    """

    workdir: Workdir
    steps: int
    done: int
    best: tuple[int, float] | None = None
    stopped: bool = False
    trained: bool = True


@dataclasses.dataclass
class _Opened:
    """What a run is made of, before its data. `errors` are raised with those of the data."""

    workdir: Workdir
    done: int | None
    source: ModelSource
    processor: Processor
    cache: ImageCache
    errors: list[str]
    model: VLMConfig
    mesh: Mesh | None = None
    earlier: resume.Earlier | None = None
    changes: list[str] = dataclasses.field(default_factory=list)
    data: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    """Closes the data of the training and of the validation, whose processes would outlive the run."""

    @property
    def finished(self) -> bool:
        """Whether an earlier start did all that is asked for, as far as that is known without the data."""
        earlier = self.earlier
        return earlier is not None and not self.errors and not self.changes and earlier.steps == self.done


def run(
    config: ConfigDict, workdir: str, *, may_change: tuple[str, ...] = resume.MAY_CHANGE, console: Console | None = None
) -> Result:
    """Trains as the settings say, or goes on from the newest checkpoint of the folder.

    Args:
      config: as `vlm_jax.training.config.default_config`.
      workdir: the folder of the run, here or at a gs:// address; it is made where it is not there.
      may_change: the settings that a run may go on with otherwise.
      console: takes what is reported.

    Raises:
      InputError: settings, a model or data that cannot be used, all errors together as far as they can be known; or
        the run cannot go on with these settings.
    """
    check_config(config)
    check_usable(workdir)
    keep_compiled_programs()
    hosts.start()
    trackers.check(config.log, writes=hosts.is_first())
    console = console or Console(silent=not hosts.is_first())
    say = console.say
    say(f"running on {meshes.describe_devices()}")
    if advice := meshes.idle_accelerator():
        say(f"WARNING: JAX runs on the CPU although {advice}")

    opened = _open(config, workdir, may_change, console)
    if opened.done is not None and opened.earlier is not None and opened.finished:
        run_folder.check_present(opened.workdir.home, opened.done)
        _check_same_data(config, opened, opened.earlier)
        say(
            f"finished: all {opened.done} steps of {opened.workdir} are done; ask for more with --config.train.steps "
            "or --config.train.epochs"
        )
        return Result(opened.workdir, opened.done, opened.done, trained=False)
    say(f"training {opened.source.name} on {config.data.path or ', '.join(config.data.mixture)}")
    if both := _also_trained_on(config):
        say(f"WARNING: {', '.join(both)} is trained on and validated on: its loss will say little of what is new")
    with opened.data:
        dataset = _open_data(config, opened, console)
        plan = _plan(config, opened, dataset)
        say(inspection.summary(dataset, plan, len(plan)))
        return _train(config, opened, dataset, plan, console)


def _open(config: ConfigDict, name: str, may_change: tuple[str, ...], console: Console) -> _Opened:
    """The folder, the model, the mesh, and what an earlier part of the run left."""
    workdir = open_workdir(name)
    workdir.check_free()
    done = run_folder.latest_step(workdir.home)
    run_folder.check_newer(workdir.home, done)
    hosts.agree(done, f"--workdir={workdir}, its newest checkpoint")
    source = open_starting_model(
        config.model.path, config.assemble.to_dict(), workdir.home, done, seed=config.train.seed
    )
    tokens = visual_tokens.of_settings(config.model, config.train.seed)
    budget = tokens.budget
    processor = description.read_processor(source.assets, source.config, tokens.limits, budget)
    if done is None and source.reduction is not None and source.reduction != reduction_file.to_json(budget):
        console.say(
            f"{source.name} was trained on fewer visual tokens ({source.reduction}); this run takes what its own "
            "settings say (model.visual_tokens, model.token_reduction, model.token_schedule)"
        )
    processor.most_tokens = max(config.batch.sequence_length, config.batch.max_sequence_length)
    model = learned.with_parameters(source.config, budget.method)
    opened = _Opened(workdir, done, source, processor, ImageCache.of_user(say=console.say), [], model)
    errors = opened.errors
    with gathered(errors):
        source.check()
    with gathered(errors):
        opened.mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh))
        meshes.check_rows(opened.mesh, config.batch.rows, config.batch.gradient_accumulation)
        meshes.check_heads(opened.mesh, model)
        check_remat(config.train.remat, jax.default_backend())
    with gathered(errors):
        token_budget.cut_layers(budget.method, budget.layer, model.decoder.layers)
    with gathered(errors):
        select(config, model, compute_dtype(config.model.dtype, jax.default_backend()))
    if done is not None:
        with gathered(errors):
            opened.earlier = resume.read(workdir.home, done)
            with gathered(errors):
                opened.earlier.check_model(config.model.path)
            opened.changes = opened.earlier.changes(resume_settings(config), may_change=may_change)
    return opened


def _open_data(config: ConfigDict, opened: _Opened, console: Console) -> Dataset:
    """The data, measured, with the shapes of its batches.

    Raises:
      InputError: with the errors of everything that was opened so far.
    """
    errors, batch, dataset = opened.errors, config.batch, None
    with gathered(errors):
        dataset = open_dataset(
            config.data.to_dict(),
            opened.processor,
            seed=config.train.seed,
            complete=config.train.steps == 0,
            cache=opened.cache,
            progress=functools.partial(console.progress, "measuring"),
            sets=MeasuredSets.of_user(),
            division=_division(),
            schedule=visual_tokens.of_settings(config.model, config.train.seed).schedule,
            say=console.say,
        )
        opened.data.callback(dataset.close)
        errors += [*dataset.errors, remedy(len(dataset.errors))] if dataset.errors else []
    if dataset is not None and opened.mesh is not None:
        ways = meshes.row_shards(opened.mesh) * batch.gradient_accumulation
        with gathered(errors):
            dataset.choose_buckets(batch.to_dict(), opened.model, rows_multiple=ways)
    if errors:
        raise InputError(list(dict.fromkeys(errors)))
    return dataset


def _division() -> Division:
    """How the processes of this run share the looking at images."""
    return Division(jax.process_index(), jax.process_count(), hosts.total)


def _check_same_data(config: ConfigDict, opened: _Opened, earlier: resume.Earlier) -> None:
    """Raises InputError where a finished run is asked to learn other data than it did, or data that cannot be opened:
    nothing of it would be learned."""
    settings, seed = config.data.to_dict(), config.train.seed
    dataset = Dataset(open_parts(settings, opened.processor, seed=seed), settings, seed=seed)
    try:
        _check_data(earlier, dataset)
    finally:
        dataset.close()


def _check_data(earlier: resume.Earlier, dataset: Dataset) -> None:
    """Raises InputError where the data of a run that goes on are not what it began with."""
    now = dataset.fingerprint()
    differs = earlier.resume.get("data") != now
    known = identity.differences(identity.read(earlier.home), dataset.records()) if differs else []
    earlier.check_data({"data": now}, {"data": known})


def _also_trained_on(config: ConfigDict) -> list[str]:
    """Files of the validation that are trained on as well."""
    trained = {locations.absolute(name) for name in locations.named_in(config.data.path)}
    named = locations.named_in(config.validation.path) if config.validation.path else []
    return [name for name in named if locations.absolute(name) in trained]


def _plan(config: ConfigDict, opened: _Opened, dataset: Dataset) -> Plan:
    """The batches of the run, from where it stands."""
    earlier = opened.earlier
    if earlier is not None:  # before the place in it is looked for: that would report numbers of rows
        _check_data(earlier, dataset)
    plan = dataset.plan(
        steps=config.train.steps,
        epochs=epochs_of(config.train),
        position=None if earlier is None else earlier.position,
        before=None if earlier is None else earlier.length,
    )
    if earlier is not None:
        earlier.check_steps(len(plan))
    if not len(plan):
        raise InputError(["no batches: nothing of the data can be used", *dataset.ledger.reasons()])
    return plan


def _train(config: ConfigDict, opened: _Opened, dataset: Dataset, plan: Plan, console: Console) -> Result:
    """What is left to be checked, and then the loop."""
    workdir, done, earlier = opened.workdir, opened.done, opened.earlier
    steps, ledger_before = len(plan), dataset.ledger.summary()
    assert opened.mesh is not None  # or an error has been raised
    change = None if earlier is None else earlier.change_of_stages(config.train.first.share, steps)
    trainer = trainer_of_run(
        config, opened.model, opened.mesh, steps, dataset.batch_shapes, change=change, say=console.say
    )
    console.say(trainer.describe())
    shard = Shard(jax.process_index(), jax.process_count())
    batches = dataset.batches(plan, threads=config.data.threads, shard=shard)
    measures, sample, settings = _check(config, opened, dataset, trainer, console.say)
    with (
        workdir.writing(first=hosts.is_first(), done=done),
        console.kept_in(workdir.folder / "log.txt"),
        explained_memory(config, opened.mesh),
    ):
        checkpoints, state = _begin(config, opened, dataset, batches, trainer, console)
        ended = loop.run(
            config,
            trainer,
            workdir,
            batches,
            state,
            shapes=dataset.batch_shapes(),
            checkpoints=checkpoints,
            settings=settings,
            done=done or 0,
            name_batch=batches.records,
            measures=measures,
            sample=sample,
            epochs=lambda: batches.epochs,
            validation_losses=earlier.validation_losses if earlier is not None else (),
            validation_scores=earlier.validation_scores if earlier is not None else (),
            console=console,
        )
        best = checkpoints.best()
        checkpoints.close()
    if dataset.ledger.summary() != ledger_before:
        console.say(f"left out or changed: {dataset.ledger.summary()}; see {workdir.home / 'ledger.jsonl'}")
    result = Result(workdir, steps, ended.state.step, best, stopped=ended.stopped)
    _tell_best(result, measures, console)
    return result


def _check(
    config: ConfigDict, opened: _Opened, dataset: Dataset, trainer: Trainer, say: Callable[[str], None]
) -> tuple[Any, Any, dict[str, Any]]:
    """(what is measured on validation examples, what writes samples, what every checkpoint says of the run).

    Raises:
      InputError: of what can be known only now: validation data, other data than the run began with, samples.
    """
    earlier = opened.earlier
    errors: list[str] = []
    known_by: dict[str, Any] = {"data": dataset.fingerprint(), "validation": None}
    measures = sample = loss = None
    with gathered(errors):
        loss, known_by["validation"] = validation.validation_loss(
            config,
            trainer,
            opened.processor,
            dataset.buckets,
            opened.cache,
            say,
            closing=opened.data,
            division=_division(),
        )
    settings = resume.settings_to_save(
        config,
        opened.processor,
        opened.source,
        known_by,
        opened.workdir.home,
        earlier,
        beside_base=not trainer.saves_base,
        lora=trainer.selection.lora,
    )
    if earlier is not None:
        with gathered(errors):
            earlier.check_data(known_by, {})
    model = validation.ModelInTraining(config, trainer, opened.processor, opened.source.assets, opened.workdir)
    with gathered(errors):
        sample = model.sampler()
    with gathered(errors):
        measures = None if loss is None else Measures(loss, model.scorer(), config.validation.metric)
    if errors:
        raise InputError(errors)
    return measures, sample, settings


def _tell_best(result: Result, measures: Measures | None, console: Console) -> None:
    if measures is not None and not result.stopped and result.best is not None and result.best[0] != result.done:
        step, shortfall = result.best
        value = f"{1 - shortfall:.1%}" if measures.score else f"{shortfall:.4f}"
        place = result.workdir.home / "checkpoints" / str(step)
        console.say(f"{measures.best} validation examples: {value}, {place}")


def _begin(
    config: ConfigDict, opened: _Opened, dataset: Dataset, batches: Batches, trainer: Trainer, console: Console
) -> tuple[run_folder.Checkpoints, Any]:
    """The parameters on their devices, and the small files of the run in its folder."""
    workdir, done, source = opened.workdir, opened.done, opened.source
    read = functools.partial(ModelSource.read, place=trainer.place, sharding=trainer.sharding)
    state = None
    if done is None:
        state = trainer.start(read(source))
        if hosts.is_first():
            workdir.write_assets(source.assets)
            if (records := dataset.records()) is not None:
                write_json(workdir.folder / identity.FILE, records)
    hosts.wait_for_all("the run folder is there")
    checkpoints = run_folder.Checkpoints(workdir.home, keep=config.checkpoint.keep, best=config.checkpoint.best)
    if done is not None:
        state = trainer.restore(checkpoints, done, batches, base=lambda: read(source.base or source))
        console.say(_going_on(done, trainer.steps, opened.changes))
    if hosts.is_first():
        write_json(workdir.folder / "config.json", json.loads(config.to_json()))
        dataset.ledger.keep_in(workdir.folder / "ledger.jsonl")
    return checkpoints, state


def _going_on(done: int, steps: int, changes: list[str]) -> str:
    """In a line, from where a run goes on and what is otherwise from now on."""
    if not changes:
        return f"going on from step {done}"
    return (
        f"going on from step {done} to {steps} with {', '.join(changes)}: the schedule is worked out anew for {steps} "
        "steps; optimizer state and place in the data stay"
    )

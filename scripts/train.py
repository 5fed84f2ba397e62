"""Trains a vision-language model on pictures and questions, and saves checkpoints that go on, convert and answer.

    .venv/bin/python scripts/train.py --config=configs/photos.py --workdir=runs/photos

The work folder, here or at a gs:// address, is made when it is not there. The same command on the same folder goes on
from its last checkpoint, after Ctrl-C, a kill, or a power cut. On several hosts, start it on each (docs/training.md).
Any setting is overridden as --config.section.name=value:

    .venv/bin/python scripts/train.py --config=configs/photos.py --workdir=runs/mine \
        --config.model.path=Qwen/Qwen2.5-VL-3B-Instruct --config.data.path=mine.csv
"""

import interrupts  # noqa: F401 - first of all

import json
import os
import sys
from pathlib import Path, PurePath

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

import command_line

flags.DEFINE_string(
    "workdir", None, "folder of the run, here or gs://bucket/run: checkpoints, metrics, settings", required=True
)

MODEL = "model"
"""Below the run's folder: the model it assembled."""


def main(config: ConfigDict, *, may_change: tuple[str, ...] | None = None) -> None:
    """`may_change`: the settings that a run may go on with otherwise; None: those of the length and the schedule."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the loader's threads already keep the cores busy
    from vlm_jax.training.config import check_config, epochs_of, lasting_settings

    check_config(config)
    check_workdir(flags.FLAGS.workdir)
    # Loaded late: --help and a mistyped setting should not wait for JAX.
    import jax

    import watching
    from data_pipeline import identity, inspection, loader
    from data_pipeline.ledger import Ledger
    from vlm_jax.checkpoint import description, run_folder
    from vlm_jax.checkpoint.files import write_json
    from vlm_jax.checkpoint.model_source import adapter_settings
    from vlm_jax.checkpoint.workdir import open_workdir
    from vlm_jax.errors import InputError, gathered
    from vlm_jax.parallel import hosts
    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.parallel.starting import keep_compiled_programs
    from vlm_jax.processing.rows import batch_shapes
    from vlm_jax.training import loop, resume
    from vlm_jax.training.compile_report import explained_memory
    from vlm_jax.training.log import Console
    from vlm_jax.training.selection import select
    from vlm_jax.training.trainer import Trainer, compute_dtype

    keep_compiled_programs()
    hosts.start()
    console = Console(silent=not hosts.is_first())
    say = console.say
    say(f"running on {meshes.describe_devices()}")
    if advice := meshes.idle_accelerator():
        say(f"WARNING: JAX runs on the CPU although {advice}")

    workdir = open_workdir(flags.FLAGS.workdir)
    workdir.check_free()
    done = run_folder.latest_step(workdir.home)
    run_folder.check_newer(workdir.home, done)
    hosts.agree(done, f"--workdir={workdir}, its newest checkpoint")
    source = opened(config, workdir, done)
    model = source.config
    processor = description.read_processor(
        source.assets, model, (config.model.min_visual_tokens, config.model.max_visual_tokens)
    )
    faults, batch, mesh, earlier, changes = [], config.batch, None, None, []
    processor.most_tokens = max(batch.tokens, batch.context)
    with gathered(faults):
        source.check()
    with gathered(faults):
        mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh))
        meshes.check_rows(mesh, batch.rows, batch.accumulate)
        meshes.check_heads(mesh, model)
    with gathered(faults):
        select(config, model, compute_dtype(config.model.dtype, jax.default_backend()))
    lasting = lasting_settings(config)
    if done is not None:
        with gathered(faults):
            earlier = resume.read(workdir.home, done)
            with gathered(faults):
                earlier.check_model(config.model.path)
            changes = earlier.changes(lasting, may_change=resume.MAY_CHANGE if may_change is None else may_change)
        if not faults and not changes and earlier.steps == done:
            run_folder.check_present(workdir.home, done)
            say(f"finished: all {done} steps of {workdir} are done; ask for more with --config.train.steps or "
                "--config.train.epochs")  # fmt: skip
            say(asking(workdir))
            return
    dataset = None
    with gathered(faults):
        dataset, wrong = loader.open_dataset(
            config.data.to_dict(),
            processor,
            ledger=Ledger(),
            complete=config.train.steps == 0,
            seed=config.train.seed,
            progress=measuring,
        )
        faults += [*wrong, loader.remedy(len(wrong))] if wrong else []
    if dataset is not None and mesh is not None:
        ways = meshes.row_shards(mesh) * batch.accumulate
        with gathered(faults):
            buckets = loader.row_buckets(dataset, batch.to_dict(), model, rows_multiple=ways)
    if faults:
        raise InputError(list(dict.fromkeys(faults)))
    data_known_by = {"data": loader.fingerprint(dataset)}
    if earlier is not None:  # before the place in it is looked for: that would be said in numbers of rows
        differs = earlier.resume.get("data") != data_known_by["data"]
        told = identity.differences(identity.read(workdir.home), loader.records_of(dataset)) if differs else []
        earlier.check_data(data_known_by, {"data": told})
    plan = loader.plan_run(
        dataset,
        buckets,
        steps=config.train.steps,
        epochs=epochs_of(config.train),
        seed=config.train.seed,
        shuffle=config.data.shuffle,
        position=earlier and earlier.position,
        before=earlier and earlier.length,
    )
    steps = len(plan)
    if earlier is not None:
        earlier.check_steps(steps)
    if not steps:
        raise InputError(["no batches: nothing of the data can be used", *dataset.ledger.reasons()])
    say(inspection.summary(dataset, plan, steps))
    told = dataset.ledger.summary()
    change = earlier and earlier.change_of_stages(config.train.first.share, steps)
    trainer = Trainer(config, model, mesh, steps, change=change)
    say(trainer.describe())
    merge_unit = processor.images.merge_size**2
    row_shape = {"patch_values": model.vision.patch_values, "merge_unit": merge_unit}
    batches = loader.make_loader(
        dataset,
        plan,
        steps,
        **row_shape,
        threads=config.data.threads,
        shard=loader.Shard(jax.process_index(), jax.process_count()),
    )
    measure, held_out = None, None
    with gathered(faults):
        measure, held_out = watching.held_out_loss(trainer, processor, buckets, row_shape)
    data_known_by["held_out"] = held_out
    digest = source.digest() if earlier is None else earlier.digest
    known_by = {**lasting, **data_known_by, **({resume.MODEL: digest} if digest else {})}
    settings = run_folder.settings_json(processor.images, resume=known_by)
    if not trainer.saves_base:
        settings |= adapter_settings(source if done is None else source.base, trainer.selection.lora, workdir.home)
    if done is not None:
        with gathered(faults):
            earlier.check_data(data_known_by, {})
    with gathered(faults):
        sample = watching.sampler(trainer, processor, source.assets, workdir)
    if faults:
        raise InputError(faults)
    with (
        workdir.held(first=hosts.is_first(), done=done),
        console.kept_in(workdir.folder / "log.txt"),
        explained_memory(config, mesh),
    ):
        if done is None:
            state = trainer.start(source.read(place=trainer.place, sharding=trainer.sharding))
            if hosts.is_first():
                workdir.write_assets(source.assets)
                if (records := loader.records_of(dataset)) is not None:
                    write_json(workdir.folder / identity.FILE, records)
        hosts.wait_for_all("the work folder is there")
        checkpoints = run_folder.Checkpoints(workdir.home, keep=config.checkpoint.keep, best=config.checkpoint.best)
        if done is not None:
            state = trainer.restore(
                checkpoints,
                done,
                batches,
                base=lambda: source.base.read(place=trainer.place, sharding=trainer.sharding),
            )
            say(going_on(done, steps, changes))
        if hosts.is_first():
            write_json(workdir.folder / "config.json", json.loads(config.to_json()))
            dataset.ledger.keep_in(workdir.folder / "ledger.jsonl")
        reached = loop.run(
            trainer,
            workdir,
            batches,
            state,
            shapes=[batch_shapes(bucket.rows, bucket.size, **row_shape) for bucket in buckets],
            checkpoints=checkpoints,
            settings=settings,
            done=done or 0,
            name_batch=batches.records,
            measure=measure,
            sample=sample,
            epochs=lambda: batches.epochs,
            console=console,
        )
        best = checkpoints.best()
        checkpoints.close()
    if dataset.ledger.summary() != told:
        say(f"left out or changed: {dataset.ledger.summary()}; see {workdir.home / 'ledger.jsonl'}")
    if reached < steps:
        raise KeyboardInterrupt
    if measure is not None and best is not None and best[0] != steps:
        say(f"lowest loss on held-out examples: {best[1]:.4f}, {workdir.home / 'checkpoints' / str(best[0])}")
    say(f"done: {asking(workdir)}")


def asking(workdir) -> str:
    return f"ask it with  {command_line.program('chat')} --model={workdir} --image=PICTURE --question=QUESTION"


def going_on(done: int, steps: int, changes: list[str]) -> str:
    """In a line, from where a run goes on and what is otherwise from now on."""
    if not changes:
        return f"going on from step {done}"
    return (
        f"going on from step {done} to {steps} with {', '.join(changes)}: the schedule is worked out anew for {steps} "
        "steps; optimizer state and place in the data stay"
    )


def opened(config: ConfigDict, workdir, done: int | None):
    """The model that the run starts from, or goes on from.

    A run that goes on needs its own folder, and the base that its adapters name; nothing else.
    """
    from vlm_jax.checkpoint.model_source import open_model
    from vlm_jax.errors import InputError

    if done is not None:
        try:
            return open_model(str(workdir))
        except InputError as error:
            try:
                return open_model(str(workdir), base=config.model.path)
            except InputError:
                raise error from None
    source = open_model(assembled(config, workdir.home) if config.assemble.encoder else config.model.path)
    if source.lora is not None:
        raise InputError(
            f"config.model.path is {config.model.path}, a model with adapters; merge them first: "
            f"{command_line.program('convert_checkpoint')} --source={config.model.path} --target=FOLDER --format=hf"
        )
    return source


def assembled(config: ConfigDict, workdir: PurePath) -> str:
    """The folder of the model that `config.assemble` describes, written below the run's where it is not there yet.

    Adapters refer to it as their base, so it stays.
    """
    import dataclasses
    import hashlib
    import shutil

    from vlm_jax.checkpoint import assembly
    from vlm_jax.checkpoint.files import alone, read_json, write_json
    from vlm_jax.checkpoint.parts import PARTS
    from vlm_jax.errors import InputError
    from vlm_jax.parallel import hosts

    if not isinstance(workdir, Path):
        raise InputError(
            f"--workdir={workdir}: a model is assembled on a disk; write it with scripts/assemble.py on every host, "
            "and give its folder as config.model.path"
        )
    folder = workdir / MODEL
    wanted = assembly.Assembly(**config.assemble, seed=config.train.seed)
    assembly.plan(wanted)  # on every host: none should wait for one that found a fault
    if hosts.is_first():
        workdir.mkdir(parents=True, exist_ok=True)
        made = dataclasses.asdict(wanted)
        if (weights := Path(wanted.connector_weights).expanduser()).is_file():
            made["connector_digest"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        with alone(workdir, "training"):
            if folder.exists() and read_json(folder / PARTS).get("assembly") != made:
                shutil.rmtree(folder)  # of a start that reached no checkpoint
            if not folder.exists():
                assembly.write(folder, wanted)
                write_json(folder / PARTS, read_json(folder / PARTS) | {"assembly": made})
    hosts.wait_for_all("the model is assembled")
    return str(folder)


def measuring(chunks, total: int):
    """Shows how far the data set is measured, where there is a terminal to show it on."""
    return tqdm(chunks, total=total, desc="measuring", unit="k", leave=False, disable=not sys.stderr.isatty())


def check_workdir(name: str) -> None:
    """A run may use a new or empty folder, or one it made: never somebody's model or other files."""
    from vlm_jax import locations
    from vlm_jax.checkpoint.parts import PARTS
    from vlm_jax.errors import InputError

    if not name:
        raise InputError("--workdir is empty; name the folder of the run")
    workdir = locations.folder(name)
    locations.check_bucket(workdir)
    with locations.answering(workdir):
        if workdir.exists() and not workdir.is_dir():
            raise InputError(f"--workdir={name}: is a file; name a folder that is new or of an earlier run")
        held = [path for path in workdir.iterdir() if not path.name.startswith(".")] if workdir.is_dir() else []
        begun = [path.name for path in held] == [MODEL] and (workdir / MODEL / PARTS).is_file()
        if held and not begun and not (workdir / "assets").is_dir():
            raise InputError(f"--workdir={name}: holds files that are not a run's; name a new folder")


if __name__ == "__main__":
    command_line.run(main, config=True)

"""What a training run looks at beside its steps: the loss on held-out examples, and answers of the model as it is.

A part of `scripts/train.py`: it connects data and evaluation to the loop, which calls what is made here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from data_pipeline import loader
from data_pipeline.ledger import Ledger
from data_pipeline.packing import Bucket
from data_pipeline.questions import questions_of
from vlm_jax.checkpoint.files import write_text
from vlm_jax.checkpoint.stop_tokens import stop_tokens
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import controls, report, runner
from vlm_jax.evaluation.runner import Question
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.processor import Processor
from vlm_jax.training.trainer import Trainer


def held_out_loss(
    trainer: Trainer, processor: Processor, buckets: Sequence[Bucket], row_shape: dict[str, int]
) -> tuple[Callable[[Flat], float] | None, Any]:
    """`measure(parameters)` over all of `held_out.path`, and what it is known by; None where nothing is held out.

    Raises:
      InputError: what cannot be read, or fits no row, in one list.
    """
    config = trainer.config
    if not config.held_out.path:
        return None, None
    # Faults stop a run here whatever they do in training: a loss on what happens to be readable means little.
    dataset, wrong = loader.open_dataset(
        {**_held_out(config), "on_error": "stop"}, processor, ledger=Ledger(), complete=True, seed=config.train.seed
    )
    if wrong:
        raise InputError(wrong)
    loader.fit(dataset, buckets)

    def measure(parameters: Flat) -> float:
        # A plan lets go of what it gave out: each pass has its own.
        plan = loader.plan_run(dataset, buckets, steps=0, epochs=1, seed=config.train.seed, shuffle=False)
        batches = loader.make_loader(
            dataset,
            plan,
            len(plan),
            **row_shape,
            threads=config.data.threads,
            shard=loader.Shard(jax.process_index(), jax.process_count()),
        )
        return trainer.measure(parameters, (next(batches) for _ in range(len(plan))))

    return measure, loader.fingerprint(dataset)


def sampler(
    trainer: Trainer, processor: Processor, assets: Path, workdir: Workdir
) -> Callable[[int, Flat], None] | None:
    """`sample(step, parameters)`, which writes `samples/<step>/report.html`; None where no samples are wanted.

    Raises:
      InputError: the records cannot be read, or there are several processes.
    """
    config = trainer.config
    if not config.samples.every:
        return None
    if jax.process_count() > 1:
        raise InputError(f"config.samples.every is {config.samples.every}; with several processes it must be 0")
    questions = _questions(config, processor)
    model = LoadedModel(
        trainer.model,
        {},
        processor,
        stop_tokens(assets, processor),
        dtype=trainer.dtype,
        attach=trainer.selection.still,
    )

    def sample(step: int, parameters: Flat) -> None:
        model.parameters = parameters
        folder = workdir.folder / "samples" / f"{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "predictions.jsonl").unlink(missing_ok=True)  # of a run that was killed after this step
        answers = runner.predict(
            questions,
            lambda asked: model.generate(asked, max_new_tokens=config.samples.max_new_tokens),
            folder / "predictions.jsonl",
            metric="normalised",
        )
        predictions = list(answers)
        model.parameters = {}  # the next step takes their memory
        pictures = {question.id: controls.images_of(question) for question in questions}
        title = f"{workdir} after step {step}"
        page = report.page(predictions, report.summarise(predictions, None), pictures.__getitem__, title=title)
        write_text(folder / "report.html", page)

    return sample


def _held_out(config: ConfigDict) -> dict[str, Any]:
    """The settings of the data that are held out: those of the training data, with another path."""
    return {**config.data.to_dict(), "path": config.held_out.path, "mixture": {}, "share": 1.0}


def _questions(config: ConfigDict, processor: Processor) -> list[Question]:
    """A few, evenly from the held-out examples, or from the first of the training data where none are."""
    data = _held_out(config) if config.held_out.path else config.data.to_dict()
    (part, *_), _ = loader.open_parts(data, processor, seed=config.train.seed)
    source = part.source
    faults: list[str] = []
    places = range(0, len(source), max(1, len(source) // config.samples.count))
    found = []
    for place in places:
        with gathered(faults):  # a record that cannot be read is another part's to tell
            found += questions_of(source[place], faults)[:1]
    if not found:
        raise InputError(faults or f"{part.name}: nothing to ask for samples")
    return found[: config.samples.count]

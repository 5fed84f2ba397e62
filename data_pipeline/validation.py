"""What a training run looks at beside its steps: the loss on validation examples, and answers of the model as it is.

It connects data and evaluation to the loop, which calls what is made here.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.check import ALONE, Division
from data_pipeline.dataset import Dataset, open_dataset
from data_pipeline.loader import Shard
from data_pipeline.measured import MeasuredSets
from data_pipeline.packing import Bucket, as_array, bucket_of
from data_pipeline.parts import open_parts
from data_pipeline.questions import answer_errors, questions_of
from vlm_jax.checkpoint.files import write_text
from vlm_jax.checkpoint.generation_settings import repetition_penalty
from vlm_jax.checkpoint.stop_tokens import stop_tokens
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import controls, metrics, report, runner
from vlm_jax.evaluation.runner import Prediction, Question, Reply
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.models.parameters import Flat
from vlm_jax.processing.chat import Message
from vlm_jax.processing.example import Size
from vlm_jax.processing.image_cache import NO_CACHE, ImageCache
from vlm_jax.processing.processor import Processor
from vlm_jax.training.trainer import Trainer


def validation_loss(
    config: ConfigDict,
    trainer: Trainer,
    processor: Processor,
    buckets: Sequence[Bucket],
    cache: ImageCache = NO_CACHE,
    say: Callable[[str], None] = lambda line: None,
    *,
    closing: contextlib.ExitStack,
    division: Division = ALONE,
) -> tuple[Callable[[Flat], float] | None, Any]:
    """`measure(parameters)` over all of `validation.path`, and the fingerprint of it; None where there is none.

    Args:
      buckets: the shapes of the run's batches.
      cache, say, division: as of `open_dataset`.
      closing: closes the data at its end.

    Raises:
      InputError: what cannot be read, or fits no row, in one list.
    """
    if not config.validation.path:
        return None, None
    # Errors stop a run here whatever they do in training: a loss on what happens to be readable means little.
    settings = {**_settings(config), "on_error": "stop"}
    dataset = open_dataset(
        settings,
        processor,
        seed=config.train.seed,
        cache=cache,
        division=division,
        sets=MeasuredSets.of_user(),
        say=say,
    )
    closing.callback(dataset.close)
    if dataset.errors:
        raise InputError(dataset.errors)
    dataset.fit(_rows_like(buckets, dataset))

    def measure(parameters: Flat) -> float:
        # A plan lets go of what it gave out: each pass has its own.
        plan = dataset.plan(steps=0, epochs=1, shuffle=False)
        shard = Shard(jax.process_index(), jax.process_count())
        return trainer.measure(parameters, dataset.batches(plan, threads=config.data.threads, shard=shard))

    return measure, dataset.fingerprint()


def _rows_like(buckets: Sequence[Bucket], dataset: Dataset) -> list[Bucket]:
    """The rows of a run for its validation data, which need not be cut within the decoder as its own are: by a schedule
    examples are shown otherwise than they are used, and data that are mostly text leave little out."""
    cuts = dataset.examples.processor(0).cuts

    def rows(above: Callable[[Size], tuple[int, ...]]) -> list[Bucket]:
        return [Bucket(one.rows, dataclasses.replace(one.size, above=above(one.size))) for one in buckets]

    whole = rows(lambda size: (size.tokens,) * cuts)
    if not cuts or any(len(bucket.size.above) != cuts for bucket in buckets):
        return whole
    sizes = np.concatenate(dataset.examples.sizes)
    fits = (bucket_of(sizes[sizes[:, 0] >= 0], as_array([bucket.size for bucket in buckets])) >= 0).all()
    return list(buckets) if fits else whole


class ModelInTraining:
    """The model as it is in training, asked questions: for samples that a person looks at, and for scores."""

    def __init__(
        self, config: ConfigDict, trainer: Trainer, processor: Processor, assets: Path, workdir: Workdir
    ) -> None:
        """
        Args:
          assets: the folder of the tokenizer and what is beside it.
        """
        self._config, self._trainer, self._processor = config, trainer, processor
        self._assets, self._workdir = assets, workdir

    @functools.cached_property
    def _model(self) -> LoadedModel:
        return LoadedModel(
            self._trainer.model,
            {},
            self._processor,
            stop_tokens(self._assets, self._processor),
            dtype=self._trainer.dtype,
            repetition_penalty=repetition_penalty(self._assets),
            attach=self._trainer.selection.still,
        )

    def sampler(self) -> Callable[[int, Flat], None] | None:
        """`sample(step, parameters)`, which writes `samples/<step>/report.html`; None where no samples are wanted.

        Raises:
          InputError: the records cannot be read, or there are several processes.
        """
        samples = self._config.samples
        if not samples.every:
            return None
        _alone(f"config.samples.every is {samples.every}", "0")
        questions = _questions(self._config, self._processor, samples.count)
        images = {question.id: controls.images_of(question) for question in questions}

        def sample(step: int, parameters: Flat) -> None:
            folder = self._workdir.folder / "samples" / f"{step:06d}"
            path = folder / "predictions.jsonl"
            predictions = self._answers(questions, parameters, path, "normalised", samples.max_new_tokens)
            title = f"{self._workdir} after step {step}"
            page = report.page(predictions, report.summarise(predictions, None), images.__getitem__, title=title)
            write_text(folder / "report.html", page)

        return sample

    def scorer(self) -> Callable[[int, Flat], float] | None:
        """`score(step, parameters)`: the mean score of answers to validation examples, which are written to
        `validation/<step>.jsonl`; None where no metric is set.

        Raises:
          InputError: a metric that is none, or needs more than texts; answers that it cannot compare with; the records
            cannot be read, or there are several processes.
        """
        validation = self._config.validation
        if not validation.metric:
            return None
        if wrong := metrics.error_in(validation.metric, bem="", ask=None):
            needs = validation.metric.removeprefix(metrics.FINAL_ANSWER) in metrics.METRICS
            wrong = "needs more than texts; take a metric of texts" if needs else wrong
            raise InputError(f"config.validation.metric={validation.metric}: {wrong}")
        _alone(f"config.validation.metric is {validation.metric!r}", "empty")
        questions = _questions(self._config, self._processor, validation.questions)
        if errors := answer_errors(questions, validation.metric):
            raise InputError([f"config.validation.path: {line}" for line in errors])

        def score(step: int, parameters: Flat) -> float:
            path = self._workdir.folder / "validation" / f"{step:06d}.jsonl"
            answers = self._answers(questions, parameters, path, validation.metric, validation.max_new_tokens)
            return float(np.mean([one.score for one in answers]))

        return score

    def _answers(
        self, questions: Sequence[Question], parameters: Flat, path: Path, metric: str, max_new_tokens: int
    ) -> list[Prediction]:

        def answer(conversations: Sequence[Sequence[Message]]) -> Iterator[tuple[int, Reply]]:
            for number, one in enumerate(self._model.answers(conversations, max_new_tokens)):
                yield number, Reply(one.text, one.probability, len(one.tokens))

        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of a run that was killed after this step
        self._model.parameters = parameters
        try:
            return runner.in_order(runner.predict(questions, answer, path, metric=metric), questions)
        finally:
            self._model.parameters = {}  # the next step takes their memory


def _alone(setting: str, expected: str) -> None:
    if jax.process_count() > 1:
        raise InputError(f"{setting}; with several processes it must be {expected}")


def _settings(config: ConfigDict) -> dict[str, Any]:
    """The settings of the validation data: those of the training data, with another path."""
    return {**config.data.to_dict(), "path": config.validation.path, "mixture": {}, "share": 1.0}


def _questions(config: ConfigDict, processor: Processor, count: int) -> list[Question]:
    """So many (0: all), evenly from the validation examples, or from the first of the training data where there are
    none."""
    data = _settings(config) if config.validation.path else config.data.to_dict()
    (part, *_) = open_parts(data, processor, seed=config.train.seed)
    source = part.source
    errors: list[str] = []
    places = range(0, len(source), max(1, len(source) // count) if count else 1)
    found = []
    for place in places:
        with gathered(errors):  # a record that cannot be read is another part's to tell
            found += questions_of(source[place], errors)[:1]
    if not found:
        raise InputError(errors or f"{part.name}: holds no questions to ask the model")
    return found[: count or None]

"""Who answers an evaluation: a model that is loaded here, on one device or several, or a teacher that is asked.

`--model=teacher:kind=openai_compatible,model=gpt-4o-mini,endpoint=https://…/v1,api_key_env=OPENAI_API_KEY` asks one, by
the settings of `config.teachers`; its answers are kept, so that none is paid for twice.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipeline.evaluation_settings import Evaluation
from vlm_jax.errors import InputError
from vlm_jax.evaluation import runner
from vlm_jax.evaluation.runner import Reply
from vlm_jax.processing.chat import address_of, image_parts
from vlm_jax.processing.images import open_image

SEEN = ("visual_tokens", "token_reduction", "token_reduction_layer")
"""Fields of an evaluation that `vlm_jax.load` takes too."""
TEACHER = "teacher:"
STAGE = "evaluate"


@dataclasses.dataclass(frozen=True)
class AnsweringModel:
    """A model that answers.

    Attributes:
      settings: of it that move a score, as settings.json and report.json hold them.
      device: what it runs on, in words.
    """

    answer: runner.Answer
    settings: dict[str, Any]
    device: str


@contextlib.contextmanager
def opened(evaluation: Evaluation) -> Iterator[AnsweringModel]:
    """The model of an evaluation with its defaults.

    Raises:
      InputError: it cannot be loaded, or asked.
    """
    if evaluation.backend == "transformers":
        yield _by_transformers(evaluation)
    elif evaluation.model.startswith(TEACHER):
        with contextlib.ExitStack() as closing:
            yield _teacher(evaluation, closing)
    else:
        yield _loaded(evaluation)


def _loaded(evaluation: Evaluation) -> AnsweringModel:
    import vlm_jax
    from vlm_jax.inference.answering import Prompt
    from vlm_jax.inference.copies import Copies

    adapter = evaluation.model if evaluation.base else None
    seen = {name: getattr(evaluation, name) for name in SEEN}
    devices = _devices(evaluation.devices, evaluation.tensor)
    model = vlm_jax.load(evaluation.base or evaluation.model, adapter=adapter, tensor=evaluation.tensor, **seen)
    copies = Copies(model, devices)
    limit = evaluation.max_new_tokens or 0
    sampling = model.sampling(0.0, 0, {})

    def answer(conversations: Sequence[list[dict[str, Any]]]) -> Iterator[tuple[int, Reply]]:
        prompts = [
            Prompt(model.prompt(messages, limit), limit, sampling, number)
            for number, messages in enumerate(conversations)
        ]
        for number, one in copies.answer_each(prompts):
            shown = sum(image.tokens for image in prompts[number].example.images)
            yield number, Reply(one.text, one.probability, len(one.tokens), shown)

    budget = model.processor.budget
    settings: dict[str, Any] = {
        "model": evaluation.model,
        "weights": model.fingerprint(),
        "visual_tokens": list(model.processor.images.token_range),
        "decoding": _decoding(model.repetition_penalty),
    }
    if not budget.takes_all:
        layer = [budget.layer] if budget.layer else []
        settings["token_reduction"] = [budget.visual_tokens, budget.method, budget.seed, *layer]
    count, device = len(devices), devices[0].device_kind
    return AnsweringModel(answer, settings, device if count == 1 else f"{count} × {device}")


def _by_transformers(evaluation: Evaluation) -> AnsweringModel:
    from data_pipeline.transformers_backend import TransformersModel

    model = TransformersModel(evaluation.model, evaluation.max_new_tokens or 0)
    settings = {
        "model": evaluation.model,
        "backend": "transformers",
        "weights": model.fingerprint(),
        "visual_tokens": [],
        "decoding": "greedy",
    }
    return AnsweringModel(model.answer, settings, f"{model.device}, {model.name}")


def _devices(count: int, tensor: int) -> list[jax.Device]:
    """The devices of this process that answer, `tensor` together; 0: all accelerators. The cores of a CPU are one
    device's already."""
    devices = jax.local_devices()
    if max(count, tensor) > len(devices):
        flag = f"--devices={count}" if count >= tensor else f"--tensor={tensor}"
        raise InputError(f"{flag}: there are {len(devices)} here")
    every = len(devices) - len(devices) % tensor
    return devices[: count or (tensor if devices[0].platform == "cpu" else every)]


def _decoding(penalty: float) -> str:
    return "greedy" if penalty == 1 else f"greedy, repetition penalty {penalty:g}"


def _teacher(evaluation: Evaluation, closing: contextlib.ExitStack) -> AnsweringModel:
    from data_pipeline.teachers.asking import Asker, Unanswered
    from data_pipeline.teachers.request import Failure
    from data_pipeline.teachers.settings import in_text, open_teacher
    from data_pipeline.teachers.store import Store

    named = in_text(evaluation.model.removeprefix(TEACHER), f"--model={evaluation.model}")
    teacher = open_teacher(named, "--model", wanted="text")
    teacher.ready()
    parameters = {"temperature": 0.0, "max_output_tokens": evaluation.max_new_tokens}
    folder = Path(evaluation.output) / "teacher"
    asker: Asker | None = None

    def answer(conversations: Sequence[list[dict[str, Any]]]) -> Iterator[tuple[int, Reply]]:
        nonlocal asker
        if asker is None:  # only now: the output folder is this evaluation's, and held
            store = closing.enter_context(contextlib.closing(Store(folder / "store")))
            asker = closing.enter_context(Asker(store))
        requests = [_request(messages, parameters, folder / "images") for messages in conversations]
        try:
            replies = asker.ask(teacher, requests)
        except Unanswered:
            raise
        except InputError as error:
            raise runner.NobodyAnswers(error.lines) from None
        for number, reply in enumerate(replies):
            if isinstance(reply, Failure):
                yield number, Reply("", error=f"{reply.reason}: {reply.detail}")
            else:
                yield number, Reply(reply.text or "", tokens=reply.usage.output or None)

    settings = {
        "model": evaluation.model,
        "weights": teacher.model,
        "visual_tokens": [],
        "decoding": json.dumps({**teacher.parameters("text"), **parameters}),
    }
    return AnsweringModel(answer, settings, teacher.model)


def _request(messages: list[dict[str, Any]], parameters: dict[str, Any], images: Path):
    """A conversation of one question as a request; its images are put aside under their digests."""
    from data_pipeline.teachers.request import ImageFile, Request

    if len(messages) != 1:
        raise InputError(f"a teacher is asked one question at a time, and this conversation has {len(messages)} turns")
    files = []
    for part in image_parts(messages):
        buffer = io.BytesIO()
        open_image(address_of(part)).save(buffer, "PNG")
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        path = images / f"{digest}.png"
        if not path.is_file():
            images.mkdir(parents=True, exist_ok=True)
            path.write_bytes(buffer.getvalue())
        files.append(ImageFile(digest, path, "image/png"))
    # A model that is loaded here stops at its most tokens too, and is scored by what it has said.
    return Request("text", runner.text_of(messages[0]), tuple(files), parameters=parameters, partial=True, stage=STAGE)

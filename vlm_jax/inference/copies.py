"""Copies of one model on several devices of this process, which answer side by side."""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence

import jax

from vlm_jax.inference.answering import Answer, Prompt
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.placement import groups


class Copies:
    """A model, and a copy of its weights on each other device, or group of devices. Answers do not depend on which of
    them gives them.

    The devices share no step, so that none waits for another; each thread drives one of them.
    """

    def __init__(self, model: LoadedModel, devices: Sequence[jax.Device] | None = None):
        """
        Args:
          model: on the first of the devices, or on the first few.
          devices: None: all of this process. Groups are as large as the model's.
        """
        devices = jax.local_devices() if devices is None else list(devices)
        self.placements = groups(devices, len(model.placement.devices))
        self.models = [model, *(model.on(placement) for placement in self.placements[1:])]

    def answer_each(self, prompts: Sequence[Prompt], *, at_once: int | None = None) -> Iterator[tuple[int, Answer]]:
        """(number of the prompt, its answer) as batches end, as `LoadedModel.answer_each`.

        Raises:
          what one of the models raises; the others end with their batch.
        """
        parts = _parts(prompts, len(self.models))
        if len(parts) == 1:
            yield from self.models[0].answer_each(prompts, at_once=at_once)
            return
        found: queue.Queue[tuple[int, Answer] | BaseException | None] = queue.Queue()
        over = threading.Event()

        def drive(model: LoadedModel, numbers: Sequence[int]) -> None:
            try:
                with model.placement():
                    mine = model.answer_each([prompts[number] for number in numbers], at_once=at_once)
                    for place, answer in mine:
                        found.put((numbers[place], answer))
                        if over.is_set():
                            return
                found.put(None)
            except BaseException as error:
                found.put(error)

        threads = [
            threading.Thread(target=drive, args=(model, numbers), daemon=True)
            for model, numbers in zip(self.models, parts, strict=False)
        ]
        for thread in threads:
            thread.start()
        with contextlib.ExitStack() as closing:
            for thread in threads:
                closing.callback(thread.join)
            closing.callback(over.set)  # called first
            running = len(threads)
            while running:
                one = found.get()
                if isinstance(one, BaseException):
                    raise one
                if one is None:
                    running -= 1
                else:
                    yield one


def _parts(prompts: Sequence[Prompt], count: int) -> list[list[int]]:
    """The numbers of prompts by who answers them: about as many tokens each, and what follows on each other together,
    as questions about one image do."""
    whole = sum(len(prompt.example.input_ids) for prompt in prompts)
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for number, prompt in enumerate(prompts):
        parts[min(count - 1, before * count // max(1, whole))].append(number)
        before += len(prompt.example.input_ids)
    return [part for part in parts if part] or [[]]

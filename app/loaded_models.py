"""The models of the page: loaded when they are asked, few of them in memory, and one visitor answered at a time.

Visitors stand in a line, first come, first served; a place is given up when its visitor goes away. A model sees an
image with as many visual tokens as a visitor chose, which changes nothing for the next one.
"""

import contextlib
import dataclasses
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image

from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.reduction_file import check_learned
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import kept_tokens
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.loading import load
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.token_budget import ALL_TOKENS, METHODS, RESIZE, TokenBudget, cut_layers

LONGEST_LINE = 32
_LOOKS = 0.2
"""Seconds between two looks at one's place."""


class Line:
    """Visitors who wait for the models."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: deque[object] = deque()

    @contextlib.contextmanager
    def turn(self, waiting: Callable[[int], None] = lambda before: None) -> Iterator[None]:
        """Waits until it is one's turn, and has it.

        Args:
          waiting: is told how many are before one, again and again; what it raises gives the place up.

        Raises:
          InputError: too many wait.
        """
        ticket = object()
        with self._changed:
            if len(self._tickets) >= LONGEST_LINE:
                raise InputError("too many are waiting; try again in a minute")
            self._tickets.append(ticket)
        try:
            while True:
                with self._changed:
                    before = self._tickets.index(ticket)
                    if before and self._changed.wait(_LOOKS):
                        before = self._tickets.index(ticket)
                if not before:
                    break
                waiting(before)
            yield
        finally:
            with self._changed:
                self._tickets.remove(ticket)
                self._changed.notify_all()


@dataclasses.dataclass(frozen=True, eq=False)
class Held:
    """A model that was loaded, and what stays known of it once it is not in memory.

    Attributes:
      processor: as it was loaded.
      methods: that it can take.
      model: None where another has taken its place.
    """

    processor: Processor
    methods: tuple[str, ...]
    model: LoadedModel | None

    @property
    def own(self) -> TokenBudget:
        """Its budget of visual tokens, as it was trained or as the command line says."""
        return self.processor.budget

    def chosen(self, budget: TokenBudget | None) -> LoadedModel:
        """The model, from here on with so many visual tokens; None: with its own. To be called by whose turn it is."""
        assert self.model is not None
        self.model.processor = self.processor.with_reduction(budget or self.own)
        return self.model

    def visual_tokens(self, size: tuple[int, int], budget: TokenBudget | None) -> int:
        """That the decoder sees of an image of this width and height."""
        processor = self.processor.with_reduction(budget or self.own)
        return processor.visual_tokens(processor.grid(*size))

    def drawn(self, image: PIL.Image.Image, question: str, budget: TokenBudget | None) -> tuple[PIL.Image.Image, str]:
        """The image with what the decoder does not see of it dark, and how many tokens stay."""
        (panel,) = kept_tokens.panels(self.chosen(ALL_TOKENS), image, question, [budget or self.own])
        every = self.visual_tokens(image.size, ALL_TOKENS)
        return kept_tokens.drawn(panel), f"{len(panel.kept):,} of {every:,} visual tokens, by {panel.method}"


class Models:
    """Models by name, as the page lists them."""

    def __init__(self, paths: Sequence[str], *, in_memory: int = 1, options: Mapping[str, Any] | None = None):
        """
        Args:
          paths: Hugging Face folders, hub ids, PEFT folders or run folders; the first is asked unless another is
            chosen.
          in_memory: how many are held at one time.
          options: of `load`, for all of them.

        Raises:
          InputError: one of them is no model, or not a whole one; all errors together.
        """
        errors: list[str] = []
        for path in dict.fromkeys(paths):
            with gathered(errors):
                open_model(path).check()
        if errors:
            raise InputError(errors)
        self.paths = dict(zip(names_of(paths), paths, strict=True))
        self.line = Line()
        self._most, self._options = in_memory, dict(options or {})
        self._known: dict[str, Held] = {}
        self._used: OrderedDict[str, None] = OrderedDict()
        """Names of those in memory, the one that was asked last behind all others."""

    @property
    def names(self) -> list[str]:
        return list(self.paths)

    def known(self, name: str) -> Held | None:
        """What is known of a model; None where it was never loaded."""
        return self._known.get(name)

    def in_memory(self, name: str) -> bool:
        return name in self._used

    def first_in_memory(self, names: Sequence[str]) -> list[str]:
        """The names, those in memory first: fewer are loaded anew."""
        return sorted(names, key=lambda name: not self.in_memory(name))

    def get(self, name: str) -> Held:
        """A model, loaded where it is not in memory; the one that was not asked for longest makes room for it. To be
        called by whose turn it is."""
        if name not in self._used:
            while len(self._used) >= self._most:
                oldest = next(iter(self._used))
                del self._used[oldest]
                self._known[oldest] = dataclasses.replace(self._known[oldest], model=None)
            model = load(self.paths[name], **self._options)
            self._known[name] = Held(model.processor, methods_of(model, name), model)
            self._used[name] = None
        self._used.move_to_end(name)
        return self._known[name]


def names_of(paths: Sequence[str]) -> list[str]:
    """Short names of models, all different: the last parts of their paths, as many as it takes."""
    if len(set(paths)) < len(paths):
        raise InputError("--model: the same model is given twice")
    parts = [Path(path).parts for path in paths]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def methods_of(model: LoadedModel, name: str) -> tuple[str, ...]:
    """Ways to fewer visual tokens that a model can take."""
    possible = []
    for method in METHODS:
        budget = TokenBudget(0.5, method)
        try:
            check_learned(budget, model.config, name)
            cut_layers(method, 0, model.config.decoder.layers)
            model.processor.with_reduction(budget).check_budget()
        except InputError:
            continue
        possible.append(method)
    return tuple(possible)


def budget_of(percent: int, method: str) -> TokenBudget:
    """Of a share in percent."""
    return ALL_TOKENS if percent >= 100 else TokenBudget(percent / 100, method or RESIZE)

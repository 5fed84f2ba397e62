"""From a conversation to the arrays a model is fed: text, images, positions and loss mask together.

One `Processor` serves training, evaluation and chat, so that they cannot differ. Its settings travel with every
checkpoint. Fixing shapes and batching belong to `rows`.
"""

import copy
import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int, UInt8

from vlm_jax.errors import InputError, gathered
from vlm_jax.processing import chat
from vlm_jax.processing.example import CandidateTokens, Example, PatchedImage, Size, TokensAbove, tokens_above
from vlm_jax.processing.image_processors import Grid, ImageProcessor
from vlm_jax.processing.images import describe, with_image
from vlm_jax.processing.questions import question_turns
from vlm_jax.processing.rows import RowSpec
from vlm_jax.processing.token_budget import (
    ALL_TOKENS,
    POOLS,
    RESIZE,
    TokenBudget,
    blocks_of,
    kept_count,
    stays,
)
from vlm_jax.processing.vision_layout import VisionLayout


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A conversation's words: token ids with one placeholder an image, and what each weighs in the loss."""

    ids: Int[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]
    turns: Int[np.ndarray, " n"] | None = None
    """For a method that follows the question: `questions.question_turns`."""


class Processor:
    """Tokenizer, chat template and image processor of one checkpoint."""

    def __init__(
        self,
        tokenizer,
        images: ImageProcessor,
        *,
        image_token: int,
        window_side: int,
        template: str | None = None,
        budget: TokenBudget = ALL_TOKENS,
    ):
        """
        Args:
          window_side: side of a vision attention window, in visual tokens.
          budget: how many of an image's tokens the decoder sees.
        """
        self.tokenizer, self.images, self.template = tokenizer, images, template
        self.image_token, self.window_side = image_token, window_side
        self.budget = budget
        self.cuts = budget.cuts
        """Within the decoder. Beside others that are cut examples of which all tokens stay have as many."""
        self.most_tokens: int | None = None
        """That are of use: of a text of more than twice as many, only the beginning is tokenised."""

    def encode(self, messages: Sequence[chat.Message], *, generation_prompt: bool = False) -> Example:
        """Processes a conversation.

        Raises:
          InputError: not a conversation, an unreadable image, or placeholders that do not match the images.
        """
        text = self.tokenize(messages, generation_prompt=generation_prompt)
        images, errors = [], []
        for part in chat.image_parts(messages):
            with gathered(errors):
                images.append(self.prepare_image(chat.image_source(part)))
        if errors:
            raise InputError(errors)
        return self.lay_out(text, images)

    def tokenize(self, messages: Sequence[chat.Message], *, generation_prompt: bool = False) -> "Text":
        """The words of a conversation, before its images are looked at.

        Raises:
          InputError: not a conversation, or one that the template cannot render.
        """
        chat.check_messages(messages)
        render = functools.partial(chat.render, self.tokenizer, self.template, generation_prompt=generation_prompt)
        ids, weights, starts = chat.tokenize_rendered(
            self.tokenizer,
            self.template,
            messages,
            render(messages),
            learned=not generation_prompt,
            most=self.most_tokens,
            image_token=self.image_token,
        )
        turns = None
        if self.budget.by_question:
            turns = question_turns(messages, render, ids, starts, self.image_token, self.budget.method)
        return Text(ids, weights, turns)

    def lay_out(self, text: "Text", images: Sequence[PatchedImage], *, longest: int | None = None) -> Example:
        """Words and images as one example; of one that is longer, the first `longest` tokens.

        Raises:
          InputError: placeholders and images differ in number, or the cut would go through an image.
        """
        grids = [image.grid for image in images]
        counts = [len(image.layout.slot_of_token) for image in images]
        ids, weights = chat.expand_images(text.ids, text.weights, counts, self.image_token)
        # Positions are those of all tokens of an image: what is left out leaves its place empty.
        positions = self.images.positions(ids, grids, self.image_token)
        visual, candidates = ids == self.image_token, None
        if self.budget.chooses and images:
            kept = ~visual
            stay = [image.kept + start for image, start in zip(images, np.cumsum([0, *counts]), strict=False)]
            kept[np.flatnonzero(visual)[np.concatenate(stay)]] = True
            if self.budget.on_device:
                candidates = self._candidates(text, positions[:, visual], kept, counts)
            ids, weights, positions = ids[kept], weights[kept], positions[:, kept]
        above = self._above(text, counts, [image.layout for image in images]) if self.cuts else None
        ids, weights = self._cut(ids, weights, longest)
        if above is not None:  # what is asked may be cut off, and is then looked at from where the text ends
            above = TokensAbove(above.keep, np.minimum(above.queries, len(ids) - 1))
        return Example(ids, positions[:, : len(ids)], weights, tuple(images), self.image_token, candidates, above)

    def size(self, text: "Text", grids: Sequence[Grid], *, longest: int | None = None) -> Size:
        """What `lay_out` would take of a row, from the grids of the images alone: nothing is decoded."""
        counts = list(map(self.visual_tokens, grids))
        ids, weights = self._cut(*chat.expand_images(text.ids, text.weights, counts, self.image_token), longest)
        layouts = list(map(self._layout, grids))
        slots = sum(len(layout.token_of_slot) for layout in layouts)
        above = tokens_above(layouts, self._keep(layouts), len(ids)) if self.cuts else ()
        return Size(len(ids), slots * self.images.patches_per_token, int(np.count_nonzero(weights)), above)

    def _keep(self, layouts: Sequence[VisionLayout]) -> Int[np.ndarray, "images cuts"]:
        """`TokensAbove.keep` of images laid out like this."""
        counts = [self.budget.counts_above(int(layout.optional.sum())) for layout in layouts]
        return np.array(counts, np.int64).reshape(-1, self.cuts)

    def _above(self, text: "Text", counts: Sequence[int], layouts: Sequence[VisionLayout]) -> TokensAbove:
        """Of images of so many tokens each. They are weighed by the last token of the turn that shows them; where that
        is an image's, by the token behind it."""
        keep = self._keep(layouts)
        if not self.budget.cuts:  # all stay
            return TokensAbove(keep, np.zeros(len(layouts), np.int64))
        assert text.turns is not None
        shown = text.ids == self.image_token
        lengths = np.ones(len(text.ids), np.int64)
        lengths[shown] = counts
        ends = np.cumsum(lengths) - 1  # the last token of each, once images are as long as they are
        last = [int(np.flatnonzero(text.turns == turn)[-1]) for turn in text.turns[shown]]
        return TokensAbove(keep, np.array([ends[place] + shown[place] for place in last], np.int64))

    def _candidates(self, text: "Text", positions, kept, counts: Sequence[int]) -> CandidateTokens:
        """All visual tokens of an example; `kept` are the places of its tokens, these included, that stay."""
        if text.turns is None:
            return CandidateTokens(self.budget.method, positions)
        places = text.ids == self.image_token
        repeats = np.ones(len(text.ids), np.int64)
        repeats[places] = counts
        words = np.repeat(np.where(places, 0, text.turns), repeats)[kept]
        return CandidateTokens(self.budget.method, positions, words, np.repeat(text.turns[places], counts))

    def visual_tokens(self, grid: Grid) -> int:
        """Tokens of an image that the decoder sees."""
        if not self.budget.chooses:
            return self.images.tokens(grid)
        return kept_count(self.budget, self._layout(grid))

    def patch_slots(self, grid: Grid) -> int:
        """What an image takes of the tower: its patches, with the padding of windows."""
        return len(self._layout(grid).token_of_slot) * self.images.patches_per_token

    def _cut(self, ids: np.ndarray, weights: np.ndarray, longest: int | None) -> tuple[np.ndarray, np.ndarray]:
        if longest is not None and len(ids) > longest:
            if (ids[longest:] == self.image_token).any():
                raise InputError(f"cut to {longest} tokens it would lose a part of an image")
            if not weights[:longest].any():
                raise InputError(f"cut to {longest} tokens nothing would be left to learn")
            ids, weights = ids[:longest], weights[:longest]
        return ids, weights

    def with_token_range(self, visual_tokens: tuple[int, int]) -> "Processor":
        """The same words, images between so many visual tokens."""
        other = copy.copy(self)
        other.images = self.images.with_token_range(visual_tokens)
        return other

    def with_reduction(self, budget: TokenBudget, *, cuts: int = 0) -> "Processor":
        """The same, with so many of an image's tokens for the decoder.

        Args:
          cuts: of others whose examples share rows with these.
        """
        other = copy.copy(self)
        other.budget, other.cuts = budget, max(cuts, budget.cuts)
        return other

    def prepare_image(self, source) -> PatchedImage:
        def cut(image: PIL.Image.Image) -> PatchedImage:
            try:
                grid = self.grid(*image.size)
            except InputError as error:
                raise InputError(f"{describe(source)}: {error}") from None
            return self.prepared_image(self.images.cut(image, grid), grid)

        return with_image(source, cut)

    def prepared_image(self, patches: UInt8[np.ndarray, "tokens patches_per_token values"], grid: Grid) -> PatchedImage:
        layout = self._layout(grid)
        if not self.budget.chooses:
            return PatchedImage(patches, grid, layout)
        blocks = blocks_of(self.budget, layout) if self.budget.method in POOLS else None
        return PatchedImage(patches, grid, layout, stays(self.budget, layout, patches), blocks)

    def grid(self, width: int, height: int) -> Grid:
        """How an image of this size in pixels is cut."""
        grid = self.images.grid(width, height)
        if self.budget.takes_all or self.budget.method != RESIZE:
            return grid
        least, most = self.images.token_range[0], self.budget.count(self.images.tokens(grid))
        try:
            return self.images.with_token_range((min(least, most), most)).grid(width, height)
        except InputError:  # no image has as few: as few as there are
            return self.images.with_token_range((least, least)).grid(width, height)

    def check_budget(self) -> None:
        """Raises InputError where images cannot be made as much smaller as `resize` is asked to."""
        if self.budget.takes_all or self.budget.method != RESIZE:
            return
        least, most = self.images.token_range
        try:
            self.images.with_token_range((1, self.budget.count(most)))
        except InputError:
            raise InputError(
                f"visual_tokens {self.budget.visual_tokens} by resize: this encoder makes at least {least} tokens of "
                "any image; take a method that leaves some out behind it (token_reduction divprune, uniform, …)"
            ) from None

    def row_spec(self, size: Size) -> RowSpec:
        """The arrays of rows of a size."""
        return RowSpec.of(size, self.images, self.budget)

    def _layout(self, grid: Grid) -> VisionLayout:
        return self.images.layout(grid, self.window_side)

    def end_of_turn(self) -> int | None:
        """The token that ends an answer by the chat template, which training teaches; None where no one token does."""
        try:
            turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}]
            ids, weights = chat.tokenize(self.tokenizer, self.template, turns)
        except InputError:  # a template that renders no answer teaches no end of one
            return None
        last = int(ids[np.flatnonzero(weights)[-1]])
        known = {*self.tokenizer.get_added_vocab().values(), *self.tokenizer.all_special_ids}
        return last if last in known else None

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Text of generated ids, special tokens left out."""
        return self.tokenizer.decode(
            np.asarray(ids).tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

"""From a conversation to the arrays a model is fed: text, images, positions and loss mask together.

One `Processor` serves training, evaluation and chat, so that they cannot differ. Its settings travel with every
checkpoint. Fixing shapes and batching belong to `rows`.
"""

import copy
import dataclasses
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int, UInt8

from vlm_jax.errors import InputError, gathered
from vlm_jax.processing import chat
from vlm_jax.processing.image_processors import Grid, ImageProcessor
from vlm_jax.processing.images import describe, with_image
from vlm_jax.processing.rows import Example, PatchedImage, Size
from vlm_jax.processing.vision_layout import VisionLayout


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """A conversation's words: token ids with one placeholder an image, and what each weighs in the loss."""

    ids: Int[np.ndarray, " n"]
    weights: Float32[np.ndarray, " n"]


class Processor:
    """Tokenizer, chat template and image settings of one checkpoint."""

    def __init__(
        self,
        tokenizer,
        images: ImageProcessor,
        *,
        image_token: int,
        window_units: int,
        template: str | None = None,
    ):
        """
        Args:
          window_units: side of a vision attention window, in merged units.
        """
        self.tokenizer, self.images, self.template = tokenizer, images, template
        self.image_token, self.window_units = image_token, window_units
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
        ids, weights = chat.tokenize(
            self.tokenizer,
            self.template,
            messages,
            generation_prompt=generation_prompt,
            most=self.most_tokens,
            image_token=self.image_token,
        )
        return Text(ids, weights)

    def lay_out(self, text: "Text", images: Sequence[PatchedImage], *, longest: int | None = None) -> Example:
        """Words and images as one example; of one that is longer, the first `longest` tokens.

        Raises:
          InputError: placeholders and images differ in number, or the cut would go through an image.
        """
        grids = [image.grid for image in images]
        ids, weights = self._expanded(text, grids, longest)
        positions = self.images.positions(ids, grids, self.image_token)
        return Example(ids, positions, weights, tuple(images), self.image_token)

    def size(self, text: "Text", grids: Sequence[Grid], *, longest: int | None = None) -> Size:
        """What `lay_out` would take of a row, from the grids of the images alone: nothing is decoded."""
        ids, weights = self._expanded(text, grids, longest)
        slots = sum(len(self._layout(grid).units) for grid in grids)
        return Size(len(ids), slots * self.images.patches_per_token, int(np.count_nonzero(weights)))

    def _expanded(self, text: "Text", grids: Sequence[Grid], longest: int | None):
        counts = [self.images.tokens(grid) for grid in grids]
        ids, weights = chat.expand_images(text.ids, text.weights, counts, self.image_token)
        if longest is not None and len(ids) > longest:
            if (ids[longest:] == self.image_token).any():
                raise InputError(f"cut to {longest} tokens it would lose a part of an image")
            if not weights[:longest].any():
                raise InputError(f"cut to {longest} tokens nothing would be left to learn")
            ids, weights = ids[:longest], weights[:longest]
        return ids, weights

    def with_budget(self, visual_tokens: tuple[int, int]) -> "Processor":
        """The same words, images between so many visual tokens."""
        other = copy.copy(self)
        other.images = self.images.with_budget(visual_tokens)
        return other

    def prepare_image(self, source) -> PatchedImage:
        def cut(image: PIL.Image.Image) -> PatchedImage:
            try:
                grid = self.grid(*image.size)
            except InputError as error:
                raise InputError(f"{describe(source)}: {error}") from None
            return self.prepared_image(self.images.cut(image, grid), grid)

        return with_image(source, cut)

    def prepared_image(self, patches: UInt8[np.ndarray, "units patches_per_token values"], grid: Grid) -> PatchedImage:
        return PatchedImage(patches, grid, self._layout(grid))

    def grid(self, width: int, height: int) -> Grid:
        """How an image of this size in pixels is cut."""
        return self.images.grid(width, height)

    def _layout(self, grid: Grid) -> VisionLayout:
        return self.images.layout(grid, self.window_units)

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

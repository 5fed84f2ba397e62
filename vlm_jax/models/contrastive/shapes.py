"""Shapes of encoders that put images and texts into one space: CLIP and SigLIP, both halves."""

import dataclasses

from vlm_jax.models.llava.shapes import EncoderConfig

VARIANTS = ("clip", "siglip")


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """The text half.

    Attributes:
      variant: of `VARIANTS`.
      length: tokens that it reads at most, for each of which it has a position.
      out: values of an embedding.
      end_token: of CLIP, at whose first place the text is read off; None: at the first of the highest ids, which is
        what folders mean whose `eos_token_id` is 2 (written so before it was noticed that this is not the id).
    """

    variant: str
    depth: int
    hidden: int
    heads: int
    mlp: int
    vocab: int
    length: int
    out: int
    activation: str
    norm_eps: float
    end_token: int | None = None

    @property
    def block_slots(self) -> int:
        """0: attention is over the whole row."""
        return 0

    @property
    def filled_up(self) -> bool:
        """Whether every text is filled up to `length`, and what fills it up is seen."""
        return self.variant == "siglip"

    @property
    def causal(self) -> bool:
        return self.variant == "clip"


@dataclasses.dataclass(frozen=True)
class ContrastiveConfig:
    """Both halves. `vision` runs to its last layer and norm; its `out_hidden` is the width of embeddings."""

    vision: EncoderConfig
    text: TextConfig

    @property
    def variant(self) -> str:
        return self.vision.variant

    @property
    def dimension(self) -> int:
        """Values of an embedding."""
        return self.text.out

    def inconsistencies(self) -> list[str]:
        """What in the shapes does not go together, in words."""
        errors = self.vision.inconsistencies()
        if self.text.hidden % self.text.heads:
            errors.append(f"text hidden_size {self.text.hidden} does not divide into {self.text.heads} heads")
        if self.variant == "siglip" and self.text.out != self.vision.hidden:
            errors.append(
                f"texts become {self.text.out} values (projection_size) and images {self.vision.hidden} (hidden_size)"
            )
        return errors

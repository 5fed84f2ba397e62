"""The two flags that say how many visual tokens of an image a model sees, of every program that loads one."""

from typing import Any

from absl import flags

from token_number import number_of

flags.DEFINE_string(
    "visual_tokens",
    "",
    "of an image, that the model sees: a share such as 0.25 (1.0: all), or the most, such as 256; "
    "empty: as it was trained",
)
flags.DEFINE_string(
    "token_reduction",
    "",
    "how: resize, random, uniform, pool, divprune, mmr, cdpruner, visionzip, fastv or pyramiddrop, or mmr_learned or "
    "pool_learned of a model that has learned it; empty: as it was trained, else resize",
)
flags.DEFINE_integer("token_reduction_layer", None, "of fastv: decoder layers that see all tokens; 2 without it")


def options(also: tuple[str, ...] = ()) -> dict[str, Any]:
    """As `vlm_jax.load` takes them.

    Args:
      also: words that a program takes instead of a number of visual tokens; they are left as they are.

    Raises:
      InputError: no number.
    """
    text, method = flags.FLAGS.visual_tokens, flags.FLAGS.token_reduction or None
    return {
        "visual_tokens": text if text in also else number_of("visual_tokens", text) if text else None,
        "token_reduction": method,
        "token_reduction_layer": flags.FLAGS.token_reduction_layer,
    }

"""The two flags that say how many visual tokens of an image a model sees, of every program that loads one."""

from typing import Any

from absl import flags

flags.DEFINE_string(
    "visual_tokens",
    "",
    "of an image, that the model sees: a share such as 0.25 (1.0: all), or the most, such as 256; "
    "empty: as it was trained",
)
flags.DEFINE_string(
    "token_reduction",
    "",
    "how: resize, random, uniform, divprune, mmr, cdpruner or visionzip; empty: as it was trained, else resize",
)


def options() -> dict[str, Any]:
    """As `vlm_jax.load` takes them.

    Raises:
      InputError: no number.
    """
    from vlm_jax.errors import InputError

    text, method = flags.FLAGS.visual_tokens, flags.FLAGS.token_reduction or None
    if not text:
        return {"visual_tokens": None, "token_reduction": method}
    try:
        number = float(text) if "." in text else int(text)
    except ValueError:
        raise InputError(f"--visual_tokens={text}: wanted a share such as 0.25, or a whole number of tokens") from None
    return {"visual_tokens": number, "token_reduction": method}

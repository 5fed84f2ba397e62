"""Draws which visual tokens of an image a model sees: methods side by side, as one PNG and one HTML page.

    .venv/bin/python scripts/show_tokens.py --model=runs/photos --image=cat.jpg --output=tokens --visual_tokens=0.25

--method names one method, and may be given several times; without it, all are drawn. `cdpruner`, `fastv` and
`pyramiddrop` follow --question; of the last two what is left at the end of the decoder is drawn.
"""

import interrupts  # noqa: F401 - first of all

import os
from pathlib import Path

from absl import flags

import command_line
from token_number import number_of

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string("image", None, "the image", required=True)
flags.DEFINE_string("output", None, "folder for tokens.png and tokens.html", required=True)
flags.DEFINE_string("visual_tokens", "0.25", "a share of the image's tokens, or a number of them")
flags.DEFINE_multi_string(
    "method", [], "resize, random, uniform, pool, divprune, mmr, cdpruner, visionzip, fastv, …; all without it"
)
flags.DEFINE_integer(
    "token_reduction_layer", None, "of fastv: decoder layers that see all tokens; as the model was trained, else 2"
)
flags.DEFINE_string("question", "What is in the image?", "what is asked about it")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from vlm_jax.evaluation import token_drawing

    options, folder = flags.FLAGS, Path(flags.FLAGS.output)
    drawing = token_drawing.Drawing(
        options.model,
        options.image,
        folder,
        number_of("visual_tokens", options.visual_tokens),
        options.question,
        methods=options.method,
        layer=options.token_reduction_layer,
    )
    print("\n".join(panel.title for panel in token_drawing.draw(drawing)))
    print(f"drawn: {folder / token_drawing.IMAGE}, {folder / token_drawing.PAGE}")


if __name__ == "__main__":
    command_line.run(main)

"""Embeds passages, their words and their pictures, into an index that scripts/retrieve.py searches.

    .venv/bin/python scripts/build_index.py --encoder=clip --passages=passages.jsonl --output=runs/index

--passages is JSONL with id and text, and as far as there are some title and image (a path beside the file, or a list).
An interrupted index is finished by the same command. docs/retrieval.md says more.
"""

import interrupts  # noqa: F401 - first of all

import functools
import os

from absl import flags

import command_line

flags.DEFINE_string("encoder", None, "a CLIP or SigLIP folder or hub id, or any model", required=True)
flags.DEFINE_string("passages", None, "JSONL: id, text, and if there are some title and image", required=True)
flags.DEFINE_string("output", None, "the folder of the index", required=True)
flags.DEFINE_integer("batch", 256, "texts or images between two writes", lower_bound=1)
flags.DEFINE_enum("dtype", "auto", ["auto", "float32", "bfloat16"], "what the encoder computes in")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = flags.FLAGS
    import vlm_jax
    from vlm_jax import progress
    from vlm_jax.retrieval import building

    shown = functools.partial(progress.shown, unit="batch")
    encoder = vlm_jax.load_encoder(options.encoder, options.dtype)
    index = building.build(encoder, options.passages, options.output, batch=options.batch, progress=shown)
    print(building.closing_line(index, encoder))


if __name__ == "__main__":
    command_line.run(main)

"""Makes a Qwen-VL model with random weights and a tokenizer of its own: a Hugging Face folder from nothing.

    .venv/bin/python scripts/init_model.py --output=runs/tiny --text=tests/data/photos/photos.json

It knows nothing; it is for trying the whole path on a small machine, and for models trained from scratch. To teach a
published model, give its folder or hub id to scripts/train.py instead.
"""

import interrupts  # noqa: F401 - first of all

from pathlib import Path

from absl import flags

import command_line

flags.DEFINE_string("output", None, "folder to write", required=True)
flags.DEFINE_string("family", "", "whose sizes --preset names: qwen2_5_vl, qwen2_vl or qwen3_vl; qwen2_5_vl without it")
flags.DEFINE_string("preset", "tiny", "size: tiny or small (or a published size: 3b, 7b, …; of qwen3_vl 2b, 4b, …)")
flags.DEFINE_multi_string(
    "text",
    None,
    "what the tokenizer is trained on: data of any format that training reads, or .txt and .md",
    required=True,
)
flags.DEFINE_integer("vocab", 1024, "tokens of the tokenizer, at most")
flags.DEFINE_integer("max_visual_tokens", 256, "visual tokens an image takes by default, at most")
flags.DEFINE_integer("seed", 0, "seed of the weights")


def main() -> None:
    from data_pipeline import new_model

    options, target = flags.FLAGS, Path(flags.FLAGS.output)
    parameters, tokens = new_model.make(
        target,
        options.text,
        family=options.family,
        preset=options.preset,
        vocab=options.vocab,
        max_visual_tokens=options.max_visual_tokens,
        seed=options.seed,
    )
    print(f"{target}: {parameters:,} parameters, {tokens} tokens, random weights")


if __name__ == "__main__":
    command_line.run(main)

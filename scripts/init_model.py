"""Makes a Qwen2.5-VL model with random weights and a tokenizer of its own: a Hugging Face folder from nothing.

    .venv/bin/python scripts/init_model.py --output=runs/tiny --text=tests/data/photos/photos.json

It knows nothing; it is for trying the whole path on a small machine, and for models trained from scratch. To teach a
published model, give its folder or hub id to scripts/train.py instead.
"""

import interrupts  # noqa: F401 - first of all

import json
import tempfile
from pathlib import Path

from absl import flags

import command_line
from data_pipeline import sources
from data_pipeline.sources.containers import opening
from vlm_jax.errors import InputError

PLAIN = (".txt", ".md")
"""Extensions of files whose lines are texts as they are."""

flags.DEFINE_string("output", None, "folder to write", required=True)
flags.DEFINE_string("preset", "tiny", "size: tiny or small (or a published size: 3b, 7b, 32b, 72b)")
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
    from vlm_jax.checkpoint import files, hf_folder
    from vlm_jax.models import families
    from vlm_jax.models.presets import PRESETS, with_vocabulary
    from vlm_jax.processing.new_tokenizer import SPECIAL_TOKENS, write_tokenizer

    options = flags.FLAGS
    target = Path(options.output)
    files.check_target(target)
    # Assembled models have parts that come from elsewhere (scripts/assemble.py).
    classes = {name: families.of(config).processor_class for name, config in PRESETS.items()}
    known = [name for name in PRESETS if classes[name]]
    if options.preset not in known:
        instead = "; this one is put together by scripts/assemble.py" if options.preset in PRESETS else ""
        raise InputError(f"--preset={options.preset}: known are {', '.join(known)}{instead}")
    least = 256 + len(SPECIAL_TOKENS)
    if options.vocab < least:
        raise InputError(f"--vocab={options.vocab}: at least {least}, for all bytes and the special tokens")
    texts = [text for path in options.text for text in lines(path)]

    import jax
    import jax.numpy as jnp
    from flax import nnx

    from vlm_jax.models.hf_config import to_hf
    from vlm_jax.models.parameters import flatten
    from vlm_jax.models.vlm import VLM
    from vlm_jax.parallel.compiler import options_of_what_runs_once
    from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution

    with tempfile.TemporaryDirectory() as folder:
        assets = Path(folder)
        ids = write_tokenizer(assets, texts, options.vocab)
        # The table of embeddings is padded to a multiple of 64, as published ones are, so that it divides over devices.
        vocab = -(-(max(ids.values()) + 1) // 64) * 64
        config = with_vocabulary(PRESETS[options.preset], vocab, ids)
        images = DynamicResolution().with_token_range((4, options.max_visual_tokens))
        generation = {
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
            "pad_token_id": ids["<|endoftext|>"],
            "do_sample": False,
        }
        ends = {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
        for name, content in (
            ("config.json", to_hf(config) | ends),
            ("generation_config.json", generation),
            ("preprocessor_config.json", images.to_json(classes[options.preset])),
        ):
            (assets / name).write_text(json.dumps(content, indent=2) + "\n")
        make = jax.jit(
            lambda: nnx.state(VLM(config, dtype=jnp.float32, rngs=nnx.Rngs(options.seed))),
            compiler_options=options_of_what_runs_once(),
        )
        parameters = flatten(make())
        hf_folder.write_folder(target, config, parameters, assets)
    count = sum(array.size for array in parameters.values())
    print(f"{target}: {count:,} parameters, {vocab} tokens, random weights")


def lines(path: str) -> list[str]:
    """Text to train a tokenizer on: the lines of a plain text file, or every text of a data set in any format.

    Raises:
      InputError: what training would refuse; every error.
    """
    if Path(path).suffix.lower() in PLAIN and Path(path).is_file():
        with opening(path):
            return Path(path).read_text(encoding="utf-8-sig").splitlines()
    records, errors = sources.read(path, training=False)
    if errors:
        raise InputError(errors)
    texts = []
    for record in records:
        for message in record.messages:
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            texts += [line for part in parts if part["type"] == "text" for line in part["text"].splitlines()]
        texts += record.answers or []
    return texts


if __name__ == "__main__":
    command_line.run(main)

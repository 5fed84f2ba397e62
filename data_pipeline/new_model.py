"""A model with random weights and a tokenizer of its own, a Hugging Face folder: `scripts/init_model.py` calls it."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

from data_pipeline import sources
from data_pipeline.sources.containers import opening
from vlm_jax.checkpoint import description, files, hf_folder
from vlm_jax.errors import InputError, gathered, nearest
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.hf_config import to_hf
from vlm_jax.models.parameters import Flat, flatten
from vlm_jax.models.presets import PRESETS, of_family, with_vocabulary
from vlm_jax.models.vlm import VLM
from vlm_jax.parallel.compiler import options_of_what_runs_once
from vlm_jax.processing.new_tokenizer import SPECIAL_TOKENS, write_tokenizer

PLAIN = (".txt", ".md")
"""Extensions of files whose lines are texts as they are."""


def make(
    target: Path,
    texts: Sequence[str],
    *,
    family: str = "",
    preset: str = "tiny",
    vocab: int = 1024,
    max_visual_tokens: int = 256,
    seed: int = 0,
) -> tuple[int, int]:
    """Writes the folder. Returns (parameters, tokens that the table of embeddings has a row for).

    Args:
      target: the folder, which is not there yet or empty.
      texts: files that the tokenizer is trained on (`lines`).
      family: whose sizes `preset` names, a key of `families.FAMILIES`; "": Qwen2.5-VL's, or a whole name of `PRESETS`.
      preset: a size, of a family whose models are not put together from parts.
      vocab: tokens of the tokenizer, at most.
      max_visual_tokens: visual tokens an image takes by default, at most.
      seed: of the weights.

    Raises:
      InputError: settings, a target or texts that cannot be used; nothing is written then.
    """
    errors: list[str] = []
    with gathered(errors):
        files.check_target(target)
    # Assembled models have parts that come from elsewhere (scripts/assemble.py).
    sizes = of_family(family) if family else {name: one for name, one in PRESETS.items() if of_family(one.family)}
    if not sizes:
        known = [name for name in families.FAMILIES if of_family(name)]
        instead = "; a LLaVA is put together by scripts/assemble.py" if family in families.FAMILIES else ""
        errors.append(f"--family={family}: {nearest(family, known)}{instead}")
    elif preset not in sizes:
        instead = "; this one is put together by scripts/assemble.py" if preset in PRESETS and not family else ""
        errors.append(f"--preset={preset}: known{f' of {family}' if family else ''} are {', '.join(sizes)}{instead}")
    least = 256 + len(SPECIAL_TOKENS)
    if vocab < least:
        errors.append(f"--vocab={vocab}: at least {least}, for all bytes and the special tokens")
    words: list[str] = []
    for path in texts:
        with gathered(errors):
            words += lines(path)
    if errors:
        raise InputError(errors)
    with tempfile.TemporaryDirectory() as folder:
        config = _write_assets(Path(folder), sizes[preset], words, vocab, max_visual_tokens)
        parameters = _random(config, seed)
        hf_folder.write_folder(target, config, parameters, Path(folder))
    return sum(array.size for array in parameters.values()), config.decoder.vocab


def _write_assets(folder: Path, shapes: VLMConfig, words: list[str], vocab: int, max_visual_tokens: int) -> VLMConfig:
    """Tokenizer, settings of images and of answers; the shapes with the vocabulary that came of the words."""
    ids = write_tokenizer(folder, words, vocab)
    # The table of embeddings is padded to a multiple of 64, as published ones are, so that it divides over devices.
    config = with_vocabulary(shapes, -(-(max(ids.values()) + 1) // 64) * 64, ids)
    family = families.of(shapes)
    assert family.new_image_processor is not None  # as checked
    images = family.new_image_processor().with_token_range((4, max_visual_tokens))
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
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    description.write_processor_files(folder, images.to_json(family.processor_class))
    return config


def _random(config: VLMConfig, seed: int) -> Flat:
    make = jax.jit(
        lambda: nnx.state(VLM(config, dtype=jnp.float32, rngs=nnx.Rngs(seed))),
        compiler_options=options_of_what_runs_once(),
    )
    return flatten(make())


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

"""What a Hugging Face folder says of its model beside the weights: shapes, tokenizer, template, image processor.

Each is read from its own small file and held against the others. Weights are `hf_folder`'s.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint import chat_template
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.checkpoint.tokenizer_class import tokenizer_class
from vlm_jax.errors import InputError
from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.hf_config import from_hf
from vlm_jax.processing.image_processors import ImageProcessor, file
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget


def read_config(folder: Path) -> VLMConfig:
    """Shapes of the model in a folder, its pixel normalisation included."""
    path = folder / "config.json"
    content = read_json(path)
    with settings_of(path):
        config = from_hf(content, where=str(path))
    settings = read_image_processor(folder, config)
    config = dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, pixel_mean=settings.mean, pixel_std=settings.std)
    )
    ours = (config.vision.patch_size, config.vision.merge_size)
    if ours != (settings.patch_size, settings.merge_size):
        theirs = (settings.patch_size, settings.merge_size)
        raise InputError(
            f"{folder}: config.json has patch and merge size {ours}, the image processor {theirs}"
            f"{_of_another_family(theirs, config)}; copy both files from one model"
        )
    return config


def _of_another_family(sizes: tuple[int, int], config: VLMConfig) -> str:
    """Whose image processors have such patches, in words."""
    own = families.title_of(families.of(config))
    others = [
        families.title_of(family)
        for family in families.FAMILIES.values()
        if family.new_image_processor is not None
        and (images := family.new_image_processor()) is not None
        and (images.patch_size, images.merge_size) == sizes
    ]
    return f", which is of {' or '.join(others)}, and the model is a {own}" if others and own not in others else ""


@contextlib.contextmanager
def settings_of(path: Path):
    """Says which file a setting of the wrong type is in."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
        raise InputError(f"{path}: a setting is missing or of the wrong type ({error})") from error


def read_image_processor(folder: Path, config: VLMConfig) -> ImageProcessor:
    """How images are prepared for the model of a folder.

    Raises:
      InputError: no file says so, it is of another kind of model, or has settings that are not computed.
    """
    return image_processor_by(folder, lambda settings: families.of(config).read_image_processor(settings, config))


def image_processor_by(folder: Path, read: Callable[[Mapping[str, Any]], ImageProcessor]) -> ImageProcessor:
    """As `read_image_processor`, with what makes an image processor of the settings in the file."""
    path, settings = file.read(folder)
    try:
        return read(settings)
    except InputError as error:
        raise InputError([f"{path}: {line}" for line in error.lines]) from None
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise InputError(f"{path}: image processor settings that cannot be used ({error})") from None


def read_tokenizer(folder: Path):
    """transformers' tokenizer of a folder.

    Raises:
      InputError: there is none, or none that can be read.
    """
    # transformers makes an empty tokenizer of a folder without these, and says nothing.
    if not holds_tokenizer(folder):
        raise InputError(f"{folder}: no tokenizer.json (or vocab.json and merges.txt); copy the tokenizer's files too")
    if (folder / "tokenizer_config.json").is_file():
        longest = read_json(folder / "tokenizer_config.json").get("model_max_length")
        if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float)):
            raise InputError(
                f"{folder / 'tokenizer_config.json'}: model_max_length is {longest!r}; wanted a number of tokens"
            )
    with _quiet_transformers():
        reader = tokenizer_class(folder)
        try:
            return reader.from_pretrained(str(folder), local_files_only=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"{folder}: no readable tokenizer ({reason})") from error


def read_processor(
    folder: Path,
    config: VLMConfig,
    visual_tokens: tuple[int, int] | int | None = None,
    budget: TokenBudget = ALL_TOKENS,
) -> Processor:
    """Tokenizer, template and image processor of a folder.

    Raises:
      InputError: no tokenizer, no chat template, special ids that disagree with `config.json`, or a budget that images
        of this model cannot have.
    """
    tokenizer = read_tokenizer(folder)
    template = chat_template.read(folder, tokenizer)
    if reason := families.of(config).not_this_template(template):
        raise InputError(f"{folder}: {reason}")
    if wrong := _disagreements(folder, tokenizer, config):
        raise InputError(wrong)
    processor = Processor(
        tokenizer,
        read_image_processor(folder, config).with_token_range(visual_tokens),
        image_token=config.image_token,
        window_side=config.vision.window_side,
        template=template,
        budget=budget,
    )
    processor.check_budget()
    return processor


def check_tokenizer(folder: Path, config: VLMConfig) -> None:
    """Raises InputError when a folder's tokenizer, if it has one, is broken or of another model."""
    if holds_tokenizer(folder) and (wrong := _disagreements(folder, read_tokenizer(folder), config)):
        raise InputError(wrong)


def holds_tokenizer(folder: Path) -> bool:
    """Whether a folder has the files of a tokenizer."""
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "spiece.model"))


def _disagreements(folder: Path, tokenizer, config: VLMConfig) -> list[str]:
    """What a tokenizer says otherwise than `config.json`."""
    family, wrong = families.of(config), []
    if family.placeholders:
        token = tokenizer.convert_ids_to_tokens(config.image_token) if config.image_token < len(tokenizer) else None
        own = [known for known in family.placeholders if known in tokenizer.get_added_vocab()]
        if token not in (own or tokenizer.get_added_vocab()):
            wrong.append(
                f"{folder}: config.json has image_token_index {config.image_token}, which is {token!r} to the "
                "tokenizer and no placeholder of images; one of them is of another model: copy both from one"
            )
    wrong += [
        f"{folder}: the tokenizer gives {token} the id {found}, config.json says {expected}; one of them is of another "
        "model: copy both from one"
        for token, expected in family.special_tokens(config).items()
        if (found := tokenizer.convert_tokens_to_ids(token)) != expected
    ]
    if len(tokenizer) > config.decoder.vocab:
        wrong.append(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {config.decoder.vocab}")
    return wrong


def write_image_processor(folder: Path, images: ImageProcessor | None, config: VLMConfig) -> None:
    """Makes the small files of a folder say how images are prepared, where they say otherwise (None: they stay)."""
    if images is None:
        return
    if repeated := families.of(config).repeated_in_config(images):
        write_json(folder / "config.json", {**read_json(folder / "config.json"), **repeated})
    if images != read_image_processor(folder, config):
        write_processor_files(folder, images.to_json(families.of(config).processor_class))


def write_processor_files(folder: Path, images: Mapping[str, Any], processor: Mapping[str, Any] | None = None) -> None:
    """Writes the settings of a folder's image processor (`ImageProcessor.to_json`) so that they count.

    Args:
      processor: other settings of the processor for images and text; None leaves those that are there.
    """
    nested = folder / file.NESTED
    if processor is None and nested.is_file():
        # transformers 5 keeps the image processor there too, where it would count before the other file.
        processor = {key: value for key, value in read_json(nested).items() if key != "image_processor"}
    write_json(folder / file.FLAT, images)
    if processor is not None:
        write_json(nested, processor)


def name_dtype(path: Path, dtypes: set) -> None:
    """Makes config.json name the dtype of the weights beside it (of several, the widest): readers cast to it."""
    name = str(max(dtypes, key=lambda dtype: dtype.itemsize))
    content = read_json(path)
    parts = [
        part for part in (content, content.get("text_config"), content.get("vision_config")) if isinstance(part, dict)
    ]
    named = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if part.get(key) is not None]
    if all(part[key] == name for part, key in named) and named:
        return
    for part, key in named or [(content, "torch_dtype")]:
        part[key] = name
    write_json(path, content)


@contextlib.contextmanager
def _quiet_transformers():
    """transformers says at import that PyTorch is missing; here that is as it should be."""
    import os

    before = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TRANSFORMERS_NO_ADVISORY_WARNINGS", None)

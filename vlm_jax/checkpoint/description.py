"""What a Hugging Face folder says of its model beside the weights: shapes, tokenizer, template, picture rules.

Each is read from its own small file and held against the others. Weights are `hf_folder`'s.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint import chat_template
from vlm_jax.checkpoint.files import read_json, write_json
from vlm_jax.checkpoint.tokenizer_class import tokenizer_class
from vlm_jax.errors import InputError
from vlm_jax.models.config import EncoderConfig, VLMConfig
from vlm_jax.models.hf_config import from_hf
from vlm_jax.processing.processor import Pictures, Processor, image_settings_json, read_image_settings
from vlm_jax.processing.view_settings_file import read_view_settings, view_settings_json
from vlm_jax.processing.views import ViewSettings


def read_config(folder: Path) -> VLMConfig:
    """Shapes of the model in a folder, its pixel normalisation included."""
    path = folder / "config.json"
    held = read_json(path)
    with settings_of(path):
        config = from_hf(held, where=str(path))
    settings = read_pictures(folder, config)
    config = dataclasses.replace(
        config, vision=dataclasses.replace(config.vision, pixel_mean=settings.mean, pixel_std=settings.std)
    )
    ours = (config.vision.patch_size, config.vision.merge_size)
    if ours != (settings.patch_size, settings.merge_size):
        raise InputError(
            f"{folder}: config.json has patch and merge size {ours}, "
            f"the image processor {(settings.patch_size, settings.merge_size)}"
        )
    return config


@contextlib.contextmanager
def settings_of(path: Path):
    """Says which file a setting of the wrong type is in."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, KeyError, ZeroDivisionError) as error:
        raise InputError(f"{path}: a setting is missing or of the wrong type ({error})") from error


def read_pictures(folder: Path, config: VLMConfig) -> Pictures:
    """Picture rules of a folder, as its kind of tower takes them."""
    return read_views(folder, config.vision) if config.assembled else read_image_settings(folder)


def read_views(folder: Path, vision: EncoderConfig) -> ViewSettings:
    """Picture rules of a folder for an encoder of fixed resolution."""
    return read_view_settings(
        folder,
        image_size=vision.image_size,
        patch_size=vision.patch_size,
        class_token=bool(vision.class_slots),
        keep_class=vision.keep_class,
    )


def read_tokenizer(folder: Path):
    """transformers' tokenizer of a folder.

    Raises:
      InputError: there is none, or none that can be read.
    """
    # transformers makes an empty tokenizer of a folder without these, and says nothing.
    if not _holds_tokenizer(folder):
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


def read_processor(folder: Path, config: VLMConfig, visual_tokens: tuple[int, int] | int | None = None) -> Processor:
    """Tokenizer, template and picture rules of a folder.

    Raises:
      InputError: no tokenizer, no chat template, or special ids that disagree with `config.json`.
    """
    tokenizer = read_tokenizer(folder)
    template = chat_template.read(folder, tokenizer)
    if wrong := _disagreements(folder, tokenizer, config):
        raise InputError(wrong)
    return Processor(
        tokenizer,
        read_pictures(folder, config).with_budget(visual_tokens),
        image_token=config.image_token,
        window_units=config.vision.window_units,
        template=template,
    )


def check_tokenizer(folder: Path, config: VLMConfig) -> None:
    """Raises InputError when a folder's tokenizer, if it has one, is broken or of another model."""
    if _holds_tokenizer(folder) and (wrong := _disagreements(folder, read_tokenizer(folder), config)):
        raise InputError(wrong)


def _holds_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "vocab.json").is_file()


def _disagreements(folder: Path, tokenizer, config: VLMConfig) -> list[str]:
    """What a tokenizer says otherwise than `config.json`."""
    wrong = []
    if config.assembled:
        token = tokenizer.convert_ids_to_tokens(config.image_token) if config.image_token < len(tokenizer) else None
        own = [known for known in ("<image>", "<|image_pad|>") if known in tokenizer.get_added_vocab()]
        if token not in (own or tokenizer.get_added_vocab()):
            wrong.append(
                f"{folder}: config.json has image_token_index {config.image_token}, which is {token!r} to the "
                "tokenizer and no placeholder of pictures; one of them is of another model: copy both from one"
            )
    wanted = {
        "<|image_pad|>": config.image_token,
        "<|vision_start|>": config.vision_start_token,
        "<|vision_end|>": config.vision_end_token,
    }
    wrong += [
        f"{folder}: the tokenizer gives {token} the id {given}, config.json says {want}; one of them is of another "
        "model: copy both from one"
        for token, want in wanted.items()
        if not config.assembled and (given := tokenizer.convert_tokens_to_ids(token)) != want
    ]
    if len(tokenizer) > config.decoder.vocab:
        wrong.append(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {config.decoder.vocab}")
    return wrong


def write_pictures(folder: Path, images: Pictures | None, config: VLMConfig) -> None:
    """Makes the small files of a folder say these picture rules, where they say others (None: they stay)."""
    if config.assembled:
        write_json(folder / "config.json", {**read_json(folder / "config.json"), **grid_pinpoints(images)})
    if images is not None and images != read_pictures(folder, config):
        write_json(folder / "preprocessor_config.json", pictures_json(images, config))
        _drop_image_processor(folder / "processor_config.json")


def pictures_json(images: Pictures, config: VLMConfig) -> dict[str, Any]:
    """`preprocessor_config.json` of picture rules."""
    if isinstance(images, ViewSettings):
        return view_settings_json(images)
    processor = {"qwen2_5_vl": "Qwen2_5_VLProcessor", "qwen2_vl": "Qwen2VLProcessor"}[config.vision.family]
    return image_settings_json(images, processor)


def grid_pinpoints(images: Pictures | None) -> dict[str, Any]:
    """What LLaVA-NeXT's `config.json` repeats of the picture rules."""
    if images is None or not images.pinpoints:
        return {}
    return {"image_grid_pinpoints": [list(size) for size in images.pinpoints]}


def _drop_image_processor(path: Path) -> None:
    """transformers 5 keeps picture rules in processor_config.json too; the one written beside it shall count."""
    if path.is_file():
        held = read_json(path)
        held.pop("image_processor", None)
        write_json(path, held)


def name_dtype(path: Path, dtypes: set) -> None:
    """Makes config.json name the dtype of the weights beside it (of several, the widest): readers cast to it."""
    name = str(max(dtypes, key=lambda dtype: dtype.itemsize))
    held = read_json(path)
    parts = [part for part in (held, held.get("text_config"), held.get("vision_config")) if isinstance(part, dict)]
    named = [(part, key) for part in parts for key in ("dtype", "torch_dtype") if part.get(key) is not None]
    if all(part[key] == name for part, key in named) and named:
        return
    for part, key in named or [(held, "torch_dtype")]:
        part[key] = name
    write_json(path, held)


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

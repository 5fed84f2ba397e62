"""Putting a model together from an encoder and a text model: writes the small folder that `assembled_folder` reads.

Fresh weights are drawn here; those of the parts are never copied.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vlm_jax.checkpoint import chat_template, description, hf_folder, peft_folder, pth, tied_head, weight_files
from vlm_jax.checkpoint.assembled_folder import CONNECTOR, PARTS
from vlm_jax.checkpoint.files import check_target, copy_assets, read_json, write_json, written_whole
from vlm_jax.checkpoint.names import name_table
from vlm_jax.checkpoint.source import resolve
from vlm_jax.errors import InputError, gathered
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.llava.config_json import CONNECTORS, processor_json, read_encoder, read_text_model, to_llava
from vlm_jax.models.llava.family import LLAVA, of_encoder
from vlm_jax.models.llava.names import PART_PREFIXES, in_encoder
from vlm_jax.models.llava.shapes import EncoderConfig, assembled
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.processing.image_processors.fixed_views import MODES, FixedViews
from vlm_jax.processing.image_processors.tiles import tile_sizes

IMAGE_TOKEN, BEFORE, AFTER = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"
# The template of a text model takes words alone: images become their placeholder before it sees them.
_PROLOGUE = (
    "{%- set flat = namespace(messages=[]) -%}"
    "{%- for message in messages -%}"
    "{%- if message.content is string or message.content is none -%}"
    "{%- set flat.messages = flat.messages + [message] -%}"
    "{%- else -%}"
    "{%- set words = namespace(text='') -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'text' -%}{%- set words.text = words.text + part.text -%}"
    "{%- elif part.type in ('image', 'image_url') -%}"
    f"{{%- set words.text = words.text + '{BEFORE}{IMAGE_TOKEN}{AFTER}' -%}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set flat.messages = flat.messages + [dict(message, content=words.text)] -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = flat.messages -%}"
)
# Of text models that think when asked to: their templates leave the thinking of earlier turns out, and with it the
# empty block that says an answer came without, so that earlier answers would not stand as they were learned.
_WITHOUT_THINKING = (
    "{%- set plain = '<think>\\n\\n</think>\\n\\n' -%}"
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + (plain if message.role == 'assistant' else '') -}}"
    "{{- message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' + plain -}}{%- endif -%}"
)


@dataclasses.dataclass(frozen=True)
class Assembly:
    """What a model is put together from. `image_mode` left empty follows the encoder's folder.

    Attributes:
      encoder, decoder: folders or hub ids: a ViT, CLIP or SigLIP, and a text model of Qwen2.5 or Qwen3.
      connector: mlp (two layers, GELU between) or linear.
      connector_weights: a state dict (`.pth`) of a connector that was trained before; fresh where empty.
      image_mode: of `fixed_views.MODES`.
      background: beside a letter-boxed image: mean (the encoder's mean colour) or black.
      tiles: the most tiles of an image in mode anyres.
      feature_layer: as transformers counts hidden states; -1 is the last layer's.
      final_norm: features go through the encoder's last norm.
      keep_class: the class token becomes a visual token.
      seed: of fresh weights.
    """

    encoder: str
    decoder: str
    connector: str = "mlp"
    connector_weights: str = ""
    image_mode: str = ""
    background: str = "mean"
    tiles: int = 4
    feature_layer: int = -1
    final_norm: bool = False
    keep_class: bool = False
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class AssemblyPlan:
    """What an assembly comes to, before a byte is written.

    Attributes:
      encoder, decoder: their folders; text: the text model's `config.json`.
    """

    config: VLMConfig
    images: FixedViews
    encoder: Path
    decoder: Path
    text: dict[str, Any]
    template: str


def plan(assembly: Assembly) -> AssemblyPlan:
    """The shapes and the image processor of an assembled model.

    Raises:
      InputError: a part is missing, of another kind, or the parts do not go together: all errors that can be found.
    """
    errors: list[str] = []
    encoder = decoder = template = image_token = None
    with gathered(errors):
        encoder = resolve(assembly.encoder)
    with gathered(errors):
        decoder = resolve(assembly.decoder)
    for key, value, known in (
        ("connector", assembly.connector, CONNECTORS),
        ("image_mode", assembly.image_mode, ("", *MODES)),
        ("background", assembly.background, ("mean", "black")),
    ):
        if value not in known:
            errors.append(f"{key} is {value!r}; known are {', '.join(filter(None, known))}")
    if errors:
        raise InputError(errors)
    path = decoder / "config.json"
    text = read_json(path)
    with description.settings_of(path):
        shapes = read_text_model(text, str(path))
    vision = _encoder(encoder, assembly, shapes.hidden)
    if vision.final_norm and vision.unused_layers:
        errors.append(f"final_norm belongs to the last layer; feature_layer is {assembly.feature_layer}")
    with gathered(errors):
        images = images_of(encoder, vision, assembly)
    with gathered(errors):
        template, image_token = _words(decoder)
    if errors:
        raise InputError(errors)
    config = assembled(
        dataclasses.replace(vision, pixel_mean=images.mean, pixel_std=images.std),
        shapes,
        image_token=image_token,
        init_std=text.get("initializer_range", 0.02),
        connector=assembly.connector,
        newline=images.mode == "anyres",
    )
    config = tied_head.of_folder(decoder, config)
    return AssemblyPlan(config, images, encoder, decoder, text, template)


def _encoder(folder: Path, assembly: Assembly, width: int) -> EncoderConfig:
    path = folder / "config.json"
    with description.settings_of(path):
        return read_encoder(
            read_json(path),
            str(path),
            out_hidden=width,
            feature_layer=assembly.feature_layer,
            final_norm=assembly.final_norm,
            keep_class=assembly.keep_class,
            pooling_head=False,
        )


def _words(folder: Path) -> tuple[str, int]:
    """The chat template of a text model, and the id of the token that will stand for an image."""
    tokenizer, errors, template = description.read_tokenizer(folder), [], ""
    if tokenizer.chat_template:
        template = chat_template.read(folder, tokenizer)
        if "<think>" in template:
            if "enable_thinking" not in template:
                errors.append(
                    f"{folder}: its chat template begins every answer with <think>: text models that always think are "
                    "not supported; take an Instruct one"
                )
            template = _WITHOUT_THINKING
    else:
        errors.append(f"{folder}: the tokenizer has no chat template; take an instruction-tuned model")
    known = tokenizer.get_added_vocab()
    errors += [
        f"{folder}: its tokenizer has no token {token}; take a Qwen2.5 or Qwen3 model"
        for token in (IMAGE_TOKEN, BEFORE, AFTER)
        if token not in known
    ]
    if errors:
        raise InputError(errors)
    return template, known[IMAGE_TOKEN]


def write(target: Path, assembly: Assembly) -> None:
    """Writes the folder of an assembled model.

    Raises:
      InputError: as `plan`, something is in the way, or the weights of a part are not whole.
    """
    check_target(target)
    assembly_plan = plan(assembly)
    config, text = assembly_plan.config, assembly_plan.text
    # What the encoder has of these (a ViT's pooler) is its own.
    brought = weight_files.tensor_names(assembly_plan.encoder, in_encoder)
    tensors = {name: tensor for name, tensor in fresh(config, assembly.seed).items() if name not in brought}
    if assembly.connector_weights:
        path = Path(assembly.connector_weights).expanduser()
        if not pth.is_state_dict(path):
            raise InputError(f"{path}: no state dict of PyTorch ({', '.join(pth.SUFFIXES)}) with a connector")
        connector = peft_folder.read_connector(path, config)
        entries = {entry.path: entry for entry in name_table(config)}
        tensors |= {
            entries[path].name: np.ascontiguousarray(entries[path].transform.write(array))
            for path, array in connector.items()
        }
    with written_whole(target) as folder:
        copy_assets(assembly_plan.decoder, folder)
        (folder / "video_preprocessor_config.json").unlink(missing_ok=True)
        ends = {key: text[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if text.get(key) is not None}
        dtype = str(text.get("dtype") or text.get("torch_dtype") or "float32")
        described = to_llava(config, dtype)
        if text.get("max_position_embeddings") is not None:
            described["text_config"]["max_position_embeddings"] = text["max_position_embeddings"]
        write_json(folder / "config.json", described | LLAVA.repeated_in_config(assembly_plan.images) | ends)
        description.write_processor_files(folder, assembly_plan.images.to_json(), processor_json(config, IMAGE_TOKEN))
        _write_template(folder, assembly_plan.template)
        write_json(folder / PARTS, {"encoder": _named(assembly.encoder), "decoder": _named(assembly.decoder)})
        save_file(tensors, folder / CONNECTOR, metadata={"format": "pt"})
        (folder / CONNECTOR).chmod(0o644)
        try:
            hf_folder.check_weights(folder, config)
        except InputError as error:
            raise InputError([_of_part(line, folder, assembly_plan, assembly) for line in error.lines]) from None


def _of_part(error: str, folder: Path, assembly_plan: AssemblyPlan, assembly: Assembly) -> str:
    """An error of the weights, by the name of the part they come from."""
    places = {
        "encoder": assembly_plan.encoder,
        "connector": assembly.connector_weights,
        "decoder": assembly_plan.decoder,
    }
    message = error.removeprefix(str(folder))  # whose own name may hold anything
    part = next((places[part] for prefix, part in PART_PREFIXES.items() if prefix in message), "the parts")
    return error.replace(str(folder), str(part))


def _named(path_or_id: str) -> str:
    """A folder by its absolute path, a hub id as it is."""
    path = Path(path_or_id).expanduser()
    return str(path.absolute()) if path.is_dir() else path_or_id


def images_of(encoder: Path, vision: EncoderConfig, assembly: Assembly) -> FixedViews:
    """The image processor of the encoder's folder, with what the assembly says otherwise."""
    images = description.image_processor_by(encoder, lambda settings: of_encoder(settings, vision))
    mode = assembly.image_mode or images.mode
    images = dataclasses.replace(
        images,
        mode=mode,
        background=(0, 0, 0) if assembly.background == "black" else images.mean_colour,
        shortest_edge=images.shortest_edge if mode == "crop" else 0,
        pinpoints=tile_sizes(vision.image_size, assembly.tiles) if mode == "anyres" else (),
    )
    if errors := images.errors():
        raise InputError([f"{encoder}: {error}" for error in errors])
    return images


def fresh(config: VLMConfig, seed: int) -> dict[str, np.ndarray]:
    """The tensors that neither part brings, by the table's names, float32: a new connector, drawn as PyTorch draws a
    linear layer (uniform within 1 / √inputs), a row separator as LLaVA-NeXT does, and zeros for a ViT's pooler."""
    rng, shapes, tensors = np.random.default_rng(seed), abstract_parameters(config), {}
    for entry in name_table(config):
        if not entry.path.startswith(("connector/", "newline", "vision/unused/pooler")):
            continue
        shape = entry.transform.shape(shapes[entry.path].shape)
        if entry.path == "newline":
            array = rng.normal(0, config.decoder.hidden**-0.5, shape)
        elif entry.path.endswith("kernel"):
            array = rng.uniform(-(shape[1] ** -0.5), shape[1] ** -0.5, shape)
        else:
            array = np.zeros(shape)
        tensors[entry.name] = array.astype(np.float32)
    return tensors


def _write_template(folder: Path, template: str) -> None:
    for path in (*folder.glob("chat_template*"), *folder.glob(f"{chat_template.FURTHER}/*")):
        path.unlink()
    (folder / "chat_template.jinja").write_text(_PROLOGUE + template, encoding="utf-8")
    settings = folder / "tokenizer_config.json"
    if settings.is_file():
        tokenizer_config = read_json(settings)
        tokenizer_config.pop("chat_template", None)
        write_json(settings, tokenizer_config)

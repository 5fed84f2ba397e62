"""What is a model family's own, in one entry. Nothing else asks which family a model is of.

`families` knows all of them; how one is added is described in docs/adding_a_model.md.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.weight_names import WeightName
from vlm_jax.processing.image_processors import ImageProcessor


def _nothing(*_) -> Any:
    return {}


@dataclasses.dataclass(frozen=True)
class Family:
    """What a family of models says of itself.

    Attributes:
      model_types: `model_type` of its `config.json` files, and what people call it.
      tower: the module that turns patches into features, called as `qwen_vl.tower.VisionTower` is.
      connectors: modules from features to the decoder's width, by `VLMConfig.connector`.
      read_config: (parsed `config.json`, where) → shapes, with the tower's default normalisation of pixels: another
        file says that. Raises InputError for settings that are not computed.
      write_config: (shapes, name of the weights' dtype) → `config.json`.
      weight_names: of the tower and its connector.
      read_image_processor: (settings of the image processor file, shapes) → how images are prepared.
      processor_class: transformers' processor, named in `preprocessor_config.json`; "" names none.
      repeated_in_config: what `config.json` repeats of the image processor.
      tokenizers: {`model_type` of a folder: transformers' class that AutoTokenizer chooses for its tokenizer, with its
        module}. Such a class is loaded by itself, which takes seconds less.
      special_tokens: {token: id} that the tokenizer must agree with.
      placeholders: tokens that may stand for an image, where `special_tokens` names none.
      name_in_table: a tensor's name in another layout → the table's; the same where it is none of the family's.
      name_in_memory: a tensor of the table → its name in transformers' model in memory.
      name_in_file: (a tensor of the table, shapes) → its name in a file of the hub.
      connector_modules: of the shapes, the connector's modules, which peft saves beside adapters by `modules_to_save`;
        none where it is kept in a file of its own.
      connector_files: names of such files, as trainers of the family write them; the first is written here.
      name_in_connector: a trainer's name of a tensor, or the table's → its name in the connector by itself; None where
        it is no part of it.
      new_image_processor: how images are prepared for a model that is made from nothing; None where models of the
        family are put together from parts.
      processor_beside_adapters: whether an image processor in an adapter's folder replaces the base's.
      not_in_hub_format: (shapes, image processor) → why a Hugging Face folder cannot hold a model, in words.
      not_this_template: a chat template → why models that are trained with it are not supported, in words; "" where
        they are.
      modules: first names of the tower's and the connector's modules in the table.
    """

    model_types: Mapping[str, str]
    tower: type[nnx.Module]
    connectors: Mapping[str, type[nnx.Module]]
    read_config: Callable[[Mapping[str, Any], str], VLMConfig]
    write_config: Callable[[VLMConfig, str], dict[str, Any]]
    weight_names: Callable[[VLMConfig], list[WeightName]]
    read_image_processor: Callable[[Mapping[str, Any], VLMConfig], ImageProcessor]
    modules: tuple[str, ...]
    processor_class: str = ""
    repeated_in_config: Callable[[ImageProcessor], dict[str, Any]] = _nothing
    tokenizers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    special_tokens: Callable[[VLMConfig], dict[str, int]] = _nothing
    placeholders: tuple[str, ...] = ()
    name_in_table: Callable[[str], str] = lambda name: name
    name_in_memory: Callable[[str], str] = lambda name: name
    name_in_file: Callable[[str, VLMConfig], str] = lambda name, config: name
    connector_modules: Callable[[VLMConfig], tuple[str, ...]] = lambda config: ()
    connector_files: tuple[str, ...] = ()
    name_in_connector: Callable[[str], str | None] = lambda name: None
    new_image_processor: Callable[[], ImageProcessor] | None = None
    processor_beside_adapters: bool = True
    not_in_hub_format: Callable[[VLMConfig, ImageProcessor], list[str]] = lambda config, images: []
    not_this_template: Callable[[str], str] = lambda template: ""

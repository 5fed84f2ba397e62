"""The one table between our parameters and the tensors of a Hugging Face folder, used for reading and writing alike.

What is in it, the families say (`vlm_jax.models.families`, `weight_names`). `hub_name` maps other layouts of the same
tensors onto it: what transformers holds in memory, and what LLaVA's files say; `memory_name` and `file_name` are its
inverses.
"""

from collections.abc import Iterable

from vlm_jax.models import families
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.weight_names import SAME, WeightName, decoder_names

_LEARNED = {
    "mmr_learned": ("reducer/weight", "token_reduction.scorer.weight"),
    "pool_learned": ("reducer/kernel", "token_reduction.projection.weight"),
}
"""What a method of token reduction has learned: by no name that another program knows."""


def learned_method(tensors: Iterable[str]) -> str:
    """The method whose learned parameters are among tensors of these names; "" for none."""
    return next((method for method, (_, name) in _LEARNED.items() if name in tensors), "")


def name_table(config: VLMConfig) -> list[WeightName]:
    """An entry for every parameter of a model."""
    names = [*families.of(config).weight_names(config), *decoder_names(config.decoder)]
    return [*names, WeightName(*_LEARNED[config.reducer], SAME)] if config.reducer else names


def hub_name(name: str) -> str:
    """The table's name of a tensor (or of a module), whichever layout of whichever family it was stored in."""
    for family in families.FAMILIES.values():
        if (found := family.name_in_table(name)) != name:
            return found
    return name


def memory_name(name: str) -> str:
    """The name that transformers gives a tensor of the table in memory: the inverse of `hub_name`."""
    for family in families.FAMILIES.values():
        if (found := family.name_in_memory(name)) != name:
            return found
    return "model.language_model." + name.removeprefix("model.") if name.startswith("model.") else name


def file_name(name: str, config: VLMConfig) -> str:
    """What files of the hub call a tensor of the table; older versions of transformers read no other names."""
    return families.of(config).name_in_file(name, config)

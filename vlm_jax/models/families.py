"""The families of models that are known, by the name that the shapes of their towers carry."""

from vlm_jax.models.config import VLMConfig
from vlm_jax.models.family import Family
from vlm_jax.models.llava.family import LLAVA
from vlm_jax.models.qwen3_vl.family import QWEN3_VL
from vlm_jax.models.qwen_vl.family import QWEN2_5_VL, QWEN2_VL

FAMILIES: dict[str, Family] = {"qwen2_5_vl": QWEN2_5_VL, "qwen2_vl": QWEN2_VL, "qwen3_vl": QWEN3_VL, "llava": LLAVA}
"""By `TowerConfig.model_family`."""


def register(name: str, family: Family) -> None:
    """Makes a family known.

    Raises:
      ValueError: its name, or one of its model types, is taken.
    """
    registered = {kind for known in FAMILIES.values() for kind in known.model_types}
    if name in FAMILIES or (double := registered & family.model_types.keys()):
        raise ValueError(f"the family {name} is registered already" if name in FAMILIES else f"{sorted(double)} taken")
    FAMILIES[name] = family


def of(config: VLMConfig) -> Family:
    return FAMILIES[config.family]


def title_of(family: Family) -> str:
    """What people call it, by the first of its model types."""
    return next(iter(family.model_types.values()))


def by_model_type() -> dict[str, Family]:
    return {kind: family for family in FAMILIES.values() for kind in family.model_types}


def titles() -> dict[str, str]:
    """{`model_type`: what people call it} of all that are known."""
    return {kind: title for family in FAMILIES.values() for kind, title in family.model_types.items()}


def tokenizers() -> dict[str, str]:
    """{`model_type`: class of its folder's tokenizer} where it is known (`Family.tokenizers`)."""
    return {kind: name for family in FAMILIES.values() for kind, name in family.tokenizers.items()}

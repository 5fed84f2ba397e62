"""`adapter_config.json`: the settings that are read, those that change nothing at inference, and all others refused.

peft's LoRA has grown many relatives that share its file, and some that change the base beside. So this is a list of
what is known: a setting of a later version is taken only where it is empty, which is how peft writes a method that is
not in use.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any

from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import peft_targets
from vlm_jax.checkpoint.files import read_json
from vlm_jax.checkpoint.peft_targets import Targets
from vlm_jax.errors import InputError

SETTINGS = "adapter_config.json"
MERGE = "merge the adapter with peft (merge_and_unload) and take the merged folder"
_READ = {
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "base_model_name_or_path",
    "revision",
    "init_lora_weights",
    "task_type",
    "modules_to_save",
    *peft_targets.KEYS,
}
# How the adapter was made, trained or saved.
_WITHOUT_EFFECT = {
    "auto_mapping",
    "peft_version",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "runtime_config",
    "ensure_weight_tying",  # of adapters on embeddings, which are refused as tensors
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",  # beside use_qalora
    "lora_dtype",  # ms-swift's, as are the next two
    "lorap_lr_ratio",
    "lorap_emb_lr",
}
# Those that change what an adapter computes, and the values at which they do not.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (),
    "rank_pattern": (),
    "alpha_pattern": (),
    "fan_in_fan_out": (),
    "lora_bias": (),
    "trainable_token_indices": (),
    "target_parameters": (),
    "layer_replication": (),
    "use_qalora": (),
    "alora_invocation_tokens": (),
    "velora_config": (),
    "monteclora_config": (),
    "kasa_config": (),
    "arrow_config": (),
    "use_bdlora": (),
    "megatron_config": (),
}
_TASKS = (None, "CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
# Initialisations that leave the base as it is; peft keeps the values that were trained.
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal", "mica")
_CHANGED_BASE = ("pissa", "corda", "olora", "lora_ga")


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
    """What `adapter_config.json` says.

    Attributes:
      lora: but for the targets, which its tensors say.
      targets: the layers that must have tensors.
      base: the name or path of the model it was trained on, `org/name@revision` where it names a revision; "" for none.
      modules_to_save: ends of the names of modules that were trained as a whole beside the adapters.
    """

    lora: Lora
    base: str
    modules_to_save: tuple[str, ...]
    targets: Targets


def read_settings(folder: Path) -> AdapterSettings:
    """The settings of an adapter folder.

    Raises:
      InputError: no LoRA, or settings that this does not compute or know, all of them listed.
    """
    path = folder / SETTINGS
    settings = read_json(path)
    if settings.get("peft_type") != "LORA":
        raise InputError(f"{path}: peft_type is {settings.get('peft_type')!r}; only LORA is read; {MERGE}")
    errors = [error for key, value in settings.items() if (error := _refused(path, key, value))]
    for key, kind in (("r", int), ("lora_alpha", (int, float))):
        value = settings.get(key)
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 < value < math.inf:
            errors.append(f"{path}: {key} is {value!r}; wanted a {'whole ' * (kind is int)}number above 0")
    rslora = settings.get("use_rslora") or False
    if not isinstance(rslora, bool):
        errors.append(f"{path}: use_rslora is {rslora!r}; wanted true or false")
    if settings.get("task_type") not in _TASKS:
        errors.append(f"{path}: task_type is {settings['task_type']!r}, an adapter of another kind of model; {MERGE}")
    modules = settings.get("modules_to_save") or []
    if not isinstance(modules, list) or not all(isinstance(name, str) and name for name in modules):
        errors.append(f"{path}: modules_to_save is {modules!r}; wanted a list of names of modules")
    for key in ("base_model_name_or_path", "revision"):
        if not isinstance(settings.get(key) or "", str):
            errors.append(f"{path}: {key} is {settings[key]!r}; wanted text")
    targets = peft_targets.of_settings(settings, path, errors)
    errors += _of_changed_base(path, settings.get("init_lora_weights", True))
    if errors:
        raise InputError(errors)
    base, revision = settings.get("base_model_name_or_path") or "", settings.get("revision")
    if revision and base and "@" not in base and not Path(base).expanduser().is_dir():
        base = f"{base}@{revision}"
    lora = Lora(settings["r"], float(settings["lora_alpha"]), rslora=rslora)
    return AdapterSettings(lora, base, tuple(modules), targets)


def _refused(path: Path, key: str, value: Any) -> str | None:
    """What is wrong with a setting that is only taken where it is not in use."""
    if key in _READ or key in _WITHOUT_EFFECT or _is_empty(value) or value in _PLAIN.get(key, ()):
        return None
    if key in _PLAIN:
        return f"{path}: {key} is {value!r}, which is not read; {MERGE}"
    return f"{path}: {key} is {value!r}, a setting that is not known here and may change what is computed; {MERGE}"


def _is_empty(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, list | dict) and not value)


def _of_changed_base(path: Path, value: Any) -> list[str]:
    """An adapter whose initialisation took something out of the base belongs to that changed base."""
    name = value.lower() if isinstance(value, str) else value
    if any(name is known for known in (True, False, None)) or (isinstance(name, str) and name in _INITIAL):
        return []
    setting = f"{path}: init_lora_weights is {value!r}"
    if name == "loftq":
        return [f"{setting}: it was trained on quantised weights, not on the base's; {MERGE}"]
    if isinstance(name, str) and name.startswith(_CHANGED_BASE):
        return [
            f"{setting}, which changed the base's weights when training began; save it there with peft's "
            f"save_pretrained(…, path_initial_model_for_weight_conversion=…), or {MERGE}"
        ]
    return [f"{setting}, which is not known here and may have changed the base; {MERGE}"]

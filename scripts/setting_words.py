"""What other trainers call our settings: Hugging Face's TrainingArguments, TRL, peft, LLaMA-Factory and common speech.

Only for suggestions: such a name is refused like any other that is unknown, with the setting that is meant.
"""

import difflib
from typing import Any

from vlm_jax.training.config import renamed

MEANT = {
    "model.path": "model_name_or_path model_name model_id base_model pretrained_model checkpoint_path hf_model",
    "model.dtype": "bf16 fp16 torch_dtype precision mixed_precision compute_dtype",
    "model.attention": "attn_implementation flash_attn attention_implementation use_flash_attention",
    "model.quantise": "load_in_4bit load_in_8bit quantization quantization_bit quantize bits qlora quantization_config",
    "model.max_visual_tokens": "max_pixels image_max_pixels image_size image_resolution",
    "model.min_visual_tokens": "min_pixels image_min_pixels",
    "lora.rank": "r lora_r lora_rank lora_dim",
    "lora.alpha": "lora_alpha",
    "lora.dropout": "lora_dropout",
    "lora.targets": "target_modules lora_target target",
    "lora.rslora": "use_rslora",
    "data.path": "dataset datasets dataset_name train_file train_data data_path train_dataset file files data_files",
    "data.image_root": "image_folder image_dir media_dir images image_path",
    "data.template": "prompt_template question_template",
    "data.suffix": "post_prompt prompt_suffix",
    "data.share": "max_samples subset fraction max_train_samples",
    "data.threads": "dataloader_num_workers num_workers preprocessing_num_workers",
    "data.on_error": "skip_errors ignore_errors",
    "data.too_large": "truncation overlong",
    "batch.rows": "size batch_size per_device_train_batch_size train_batch_size bs micro_batch_size global_batch_size "
    "per_gpu_train_batch_size",
    "batch.gradient_accumulation": "gradient_accumulation_steps grad_accum accumulation_steps gradient_accumulation "
    "accum_steps",
    "batch.sequence_length": "max_length max_seq_length max_seq_len cutoff_len model_max_length seq_length "
    "sequence_length context_length block_size",
    "batch.buckets": "group_by_length",
    "train.trainable": "freeze trainable unfreeze finetuning_type tuner_type train_type freeze_vision_tower freeze_vit",
    "train.epochs": "num_epochs num_train_epochs n_epochs epoch max_epochs",
    "train.steps": "max_steps num_steps total_steps num_train_steps train_steps iterations max_iters",
    "train.seed": "data_seed random_seed random_state",
    "train.remat": "gradient_checkpointing activation_checkpointing checkpointing",
    "optimizer.name": "optim optimizer_type optimiser",
    "optimizer.learning_rate": "lr learning_rate learningrate peak_lr base_lr",
    "optimizer.warmup_fraction": "warmup_ratio warmup_steps num_warmup_steps warmup_fraction",
    "optimizer.end_lr_fraction": "min_lr lr_scheduler_type min_lr_ratio end_lr final_lr lr_scheduler scheduler",
    "optimizer.weight_decay": "wd decay",
    "optimizer.clip_norm": "max_grad_norm grad_clip gradient_clipping clip_grad_norm clip_grad",
    "optimizer.b1": "adam_beta1 beta1",
    "optimizer.b2": "adam_beta2 beta2",
    "optimizer.eps": "adam_epsilon epsilon",
    "optimizer.lr_multipliers.vision": "vit_lr vision_lr vision_tower_lr vision_learning_rate",
    "optimizer.lr_multipliers.connector": "aligner_lr merger_lr projector_lr mm_projector_lr",
    "mesh.fsdp": "fsdp_config zero deepspeed zero_stage",
    "mesh.tensor": "tensor_parallel tp tensor_parallel_size",
    "mesh.data": "dp data_parallel",
    "checkpoint.every": "save_steps save_every save_interval save_strategy",
    "checkpoint.keep": "save_total_limit keep_last max_to_keep",
    "checkpoint.best": "load_best_model_at_end save_best",
    "validation.path": "eval_dataset validation_file eval_file val_data val_dataset validation",
    "validation.every": "eval_steps eval_every eval_interval eval_strategy evaluation_strategy",
    "log.every": "logging_steps log_every log_interval logging_interval",
}
"""{setting: the names that others give it}."""

_SETTING = {name: setting for setting, names in MEANT.items() for name in names.split()}
_SECTIONS = {
    "optim": "optimizer",
    "optimiser": "optimizer",
    "training": "train",
    "trainer": "train",
    "peft": "lora",
    "adapter": "lora",
    "dataset": "data",
    "logging": "log",
    "eval": "validation",
    "held_out": "validation",
    "save": "checkpoint",
}


def nearest(key: str, settings: dict[str, Any]) -> str | None:
    """The setting that an unknown key means: in the words of other trainers, or by its letters."""
    own = key.removeprefix("config.")
    if now := renamed(own):
        return f"config.{now}"
    if (known := f"config.{meant(own)}") in settings:
        return known
    ours = f"config.{in_our_sections(own)}"
    if ours in settings:
        return ours
    best = max(settings, key=lambda other: _likeness(ours, other), default=None)
    # Keys that share little but their section would send a person to something else.
    return best if best is not None and _likeness(ours, best) >= _ALIKE else None


_ALIKE = 1.2
"""Of 2, where both the key and its last word are equal."""


def _likeness(key: str, other: str) -> float:
    """How near two dotted keys are; the last word counts apart, as people forget the group more often than the name."""
    ratio = difflib.SequenceMatcher(None, key, other).ratio()
    return ratio + difflib.SequenceMatcher(None, key.rpartition(".")[2], other.rpartition(".")[2]).ratio()


def meant(key: str) -> str | None:
    """The setting that a key in others' words means (both without `config.`), None where it is no such word."""
    name = key.rpartition(".")[2].lower().replace("-", "_")
    return _SETTING.get(key.lower().replace(".", "_")) or _SETTING.get(name)


def in_our_sections(key: str) -> str:
    """The key with its first section in our words: `optim.b3` becomes `optimizer.b3`."""
    section, dot, name = key.partition(".")
    return f"{_SECTIONS.get(section.lower(), section)}{dot}{name}"

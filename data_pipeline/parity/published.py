"""What MPA published: its models, and the settings with which it trains a student."""

from typing import Any

from vlm_jax.errors import InputError, nearest

PAIRS = {
    "qwen2_vl_2b": ("Qwen/Qwen2-VL-2B-Instruct", "Qwen/Qwen2-VL-7B-Instruct"),
    "qwen2_5_vl_3b": ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
}
"""{name: (student, teacher)}."""
TOKENS = (128, 512)
"""Visual tokens of an image: 128·28² to 512·28² pixels."""


def published(student: str, benchmark: str = "") -> dict[str, Any]:
    """Changes of `settings.parity_config`: teacher, student and training.

    Full fine-tuning for one epoch, decoder and merger at 1e-5, the vision tower at 2e-6, 3 % warm-up, then a cosine;
    about 16 examples a step.

    Args:
      student: a key of `PAIRS`.
      benchmark: which is tested on; "" for the split's own test.

    Raises:
      InputError: there is no such pair.
    """
    if student not in PAIRS:
        raise InputError(f"a config of an alignment takes the student behind its colon; {nearest(student, PAIRS)}")
    small, large = PAIRS[student]
    seen = {"min_visual_tokens": TOKENS[0], "max_visual_tokens": TOKENS[1]}
    return {
        "teachers": {"text": {"kind": "local", "model": large, **seen}},
        "training": {
            "model": {"path": small, **seen},
            "batch": {"rows": 4, "sequence_length": 2048},  # three or four examples a row
            "train": {"epochs": 1},
            "optimizer": {
                "learning_rate": 1e-5,
                "lr_multipliers": {"vision": 0.2, "connector": 1.0, "decoder": 1.0, "adapter": 1.0},
                "warmup_fraction": 0.03,
            },
            "mesh": {"data": 1, "fsdp": -1},
        },
        "evaluate": {"benchmark": benchmark},
    }

"""Converts a model between formats, bit for bit unless another --dtype is asked for.

    .venv/bin/python scripts/convert_checkpoint.py --source=runs/photos --target=my-model --format=hf
    .venv/bin/python scripts/convert_checkpoint.py --source=Qwen/Qwen2.5-VL-3B-Instruct --target=base --format=orbax

hf: a folder in the hub's layout, which transformers, vLLM and others open. orbax: a run folder, which scripts/train.py
starts from and scripts/chat.py talks to. The target must not exist, or be an empty folder.
"""

import interrupts  # noqa: F401 - first of all

from absl import flags

import command_line
from vlm_jax import terminal

flags.DEFINE_string("source", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string("target", None, "folder to write", required=True)
flags.DEFINE_string("format", "hf", "hf, peft (adapters alone), pth or orbax")
flags.DEFINE_string("base", None, "the model that a .pth file, or adapters, belong to")
flags.DEFINE_string("dtype", "keep", "dtype of the weights: keep, float32 or bfloat16")


def main() -> None:
    import vlm_jax

    options = flags.FLAGS
    vlm_jax.export(
        options.source, options.target, options.format, dtype=options.dtype, base=options.base, say=terminal.say
    )
    print(f"{options.target}: written as {options.format}")


if __name__ == "__main__":
    command_line.run(main)

r"""Assembles a vision-language model from an encoder and a text model: a small folder that points at both.

    .venv/bin/python scripts/assemble.py --encoder=google/siglip-so400m-patch14-384 \
        --decoder=Qwen/Qwen2.5-3B-Instruct --output=siglip-3b
    .venv/bin/python scripts/train.py --config=configs/siglip_qwen2_5_3b_two_stage.py --workdir=runs/mine \
        --config.model.path=siglip-3b

The connector between them starts fresh, so it answers nothing sensible before it is trained; or it comes from an
earlier training (--connector_weights=final_connector.pth). Encoders are ViT, CLIP and SigLIP of any size, decoders
text models of Qwen2.5 and Qwen3. scripts/train.py does the same by itself where config.assemble names both.
"""

import interrupts  # noqa: F401 - first of all

from pathlib import Path

from absl import flags

import command_line

flags.DEFINE_string("encoder", None, "folder or hub id of a ViT, CLIP or SigLIP", required=True)
flags.DEFINE_string("decoder", None, "folder or hub id of a text model of Qwen2.5 or Qwen3", required=True)
flags.DEFINE_string("output", None, "folder to write", required=True)
flags.DEFINE_string("connector", "mlp", "mlp: two layers with GELU between, or linear")
flags.DEFINE_string("connector_weights", "", "a .pth with a connector that was trained before")
flags.DEFINE_string(
    "image_mode", "", "squash, crop, letterbox or anyres (tiles beside the whole); empty: as the encoder's folder says"
)
flags.DEFINE_string("background", "mean", "of letter-boxed images: mean (the encoder's mean colour) or black")
flags.DEFINE_integer("tiles", 4, "tiles of an image at most, in anyres", lower_bound=2)
flags.DEFINE_integer("feature_layer", -1, "whose hidden states are features: -1 the last layer's, -2 the one before …")
flags.DEFINE_boolean("final_norm", False, "features go through the encoder's last norm")
flags.DEFINE_boolean("keep_class", False, "the class token becomes a visual token")
flags.DEFINE_integer("seed", 0, "seed of the connector's weights")


def main() -> None:
    from vlm_jax.checkpoint import description
    from vlm_jax.checkpoint.assembly import Assembly, write

    options = flags.FLAGS
    names = Assembly.__dataclass_fields__
    write(Path(options.output), Assembly(**{name: getattr(options, name) for name in names}))
    config = description.read_config(Path(options.output))
    low, high = description.read_image_processor(Path(options.output), config).token_range
    tokens = f"{low}" if low == high else f"{low} to {high}"
    print(f"{options.output}: {options.encoder} with {options.connector} connector, {tokens} visual tokens an image")


if __name__ == "__main__":
    command_line.run(main)

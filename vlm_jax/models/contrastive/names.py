"""The weight names of CLIP and SigLIP folders with both halves; those of the tower are `models.llava.names`'."""

from vlm_jax.models.contrastive.shapes import ContrastiveConfig
from vlm_jax.models.llava.names import CLIP_LAYER, tower_names
from vlm_jax.models.weight_names import LINEAR, NORM, WeightName, leading, weight_names

_POOL = {
    **{f"pool/in_proj/{kind}": f"vision_model.head.attention.in_proj_{name}" for kind, name in LINEAR.items()},
    **{f"pool/out_proj/{kind}": f"vision_model.head.attention.out_proj.{name}" for kind, name in LINEAR.items()},
    **{f"pool/norm/{kind}": f"vision_model.head.layernorm.{name}" for kind, name in NORM.items()},
    **{
        f"pool/mlp/{part}/{kind}": f"vision_model.head.mlp.{part}.{name}"
        for part in ("fc1", "fc2")
        for kind, name in LINEAR.items()
    },
}


def names(config: ContrastiveConfig) -> list[WeightName]:
    """An entry for every parameter."""
    pairs = {f"text/norm/{kind}": f"text_model.final_layer_norm.{name}" for kind, name in NORM.items()}
    pairs |= {
        "text/embedding": "text_model.embeddings.token_embedding.weight",
        "text/positions": "text_model.embeddings.position_embedding.weight",
        "logit_scale": "logit_scale",
    }
    table = []
    if config.variant == "clip":
        pairs |= {
            "image_projection/kernel": "visual_projection.weight",
            "text_projection/kernel": "text_projection.weight",
        }
    else:
        pairs |= {f"text_projection/{kind}": f"text_model.head.{name}" for kind, name in LINEAR.items()}
        pairs |= {**_POOL, "logit_bias": "logit_bias"}
        table = [WeightName("pool/probe", "vision_model.head.probe", leading(2))]
    place = "text_model.encoder.layers.{}."
    layers = {f"text/blocks/layer/{ours}": place + theirs for ours, theirs in CLIP_LAYER.items()}
    return [*tower_names(config.vision), *weight_names(pairs), *table, *weight_names(layers, config.text.depth)]


def in_table(name: str) -> str | None:
    """The table's name of a tensor of a folder; None for what is worked out anew."""
    if name.endswith("position_ids"):
        return None
    if name.startswith("vision_model.") and not name.startswith("vision_model.head."):
        return "vision_tower." + name.removeprefix("vision_model.")
    return name

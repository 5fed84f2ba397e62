"""The flags of programs that hold a model in memory: which one, how it is held, and what it sees of an image."""

from typing import Any

from absl import flags

import token_flags

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string(
    "base", None, "where the model lies that --model is an adapter of, or a run with adapters, if it moved"
)
flags.DEFINE_enum("quantise", None, ["nf4", "int8"], "hold linear layers in 4 or 8 bits")
flags.DEFINE_bool("quantise_tables", False, "with --quantise: hold embeddings and the output layer in 8 bits, too")
flags.DEFINE_integer(
    "tensor", 1, "devices among which the weights are divided, where one does not hold them", lower_bound=1
)


def load() -> Any:
    """The model, as `vlm_jax.load` opens it."""
    import vlm_jax

    options = flags.FLAGS
    named = {name: options[name].value for name in ("quantise", "quantise_tables", "tensor")}
    adapter = options.model if options.base else None
    return vlm_jax.load(options.base or options.model, adapter=adapter, **named, **token_flags.options())

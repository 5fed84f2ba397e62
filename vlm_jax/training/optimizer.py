"""The optimizer: AdamW, Adafactor or Muon under warm-up and cosine decay, behind a clip of the global gradient norm."""

import jax
import optax
from optax import contrib

from vlm_jax.adapters.lora import is_adapter
from vlm_jax.parallel.mesh import replicated


def learning_rate(settings, steps: int, *, peak: float | None = None, start: int = 0) -> optax.Schedule:
    """Linear warm-up over `warmup` (a share of the steps), then cosine to `final` times the peak.

    Args:
      peak: instead of the settings' learning rate.
      start: the step, counted from 0, at which it begins.
    """
    peak = settings.learning_rate if peak is None else peak
    warmup = round(settings.warmup * steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else peak,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=peak * settings.final,
    )
    # optax counts steps from 0: as it is, the first step would have rate 0 and the last would not reach `final`.
    return lambda count: schedule(count - start + 1)


MUON_BETA = 0.95
MUON_RMS = 0.2
"""Muon's updates have this root mean square before the learning rate, about AdamW's (Liu et al. 2025), so that one
learning rate suits both."""


def make_optimizer(settings, schedule: optax.Schedule, abstract: dict) -> optax.GradientTransformation:
    """The optimizer over {path: array}; weight decay spares norms and biases.

    With `muon`, kernels are stepped along their orthogonalised momentum (Jordan et al. 2024), everything else as by
    AdamW. `abstract`: {path: ShapeDtypeStruct} of what trains.
    """
    adamw = optax.adamw(
        schedule,
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        mask=lambda parameters: {path: decays(path) for path in parameters},
    )
    chosen = adamw
    if settings.name == "adafactor":
        chosen = optax.chain(
            # Its own scaling by the size of parameters is left out: one learning rate means the same for all three.
            optax.adafactor(None, multiply_by_parameter_scale=False, clipping_threshold=1.0),
            optax.scale(-1.0),  # it ends with a descent
            optax.add_decayed_weights(settings.weight_decay, mask=lambda held: {path: decays(path) for path in held}),
            optax.scale_by_learning_rate(schedule),
        )
    if settings.name == "muon":
        muon = contrib.muon(
            schedule,
            beta=MUON_BETA,
            weight_decay=settings.weight_decay,
            # The last two axes of a kernel are [in, out]; before them may be layers, or temporal slices.
            muon_weight_dimension_numbers=lambda kernels: jax.tree.map(
                lambda leaf: contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1), kernels
            ),
            consistent_rms=MUON_RMS,
        )
        labels = {path: "muon" if path.endswith("/kernel") else "adamw" for path in abstract}
        chosen = optax.partition({"muon": muon, "adamw": adamw}, labels)
    scales = {path: float(settings.scales[group(path)]) for path in abstract}
    by_group = optax.stateless(lambda updates, _: {path: update * scales[path] for path, update in updates.items()})
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), chosen, by_group)


def group(path: str) -> str:
    """The part of the model whose learning rate a parameter has.

    Embedding and head are the decoder's, a row separator the connector's.
    """
    if is_adapter(path):
        return "adapter"
    part = path.split("/")[0]
    return {"newline": "connector"}.get(part, part if part in ("vision", "connector") else "decoder")


def decays(path: str) -> bool:
    """Whether weight decay applies: to matrices, not to norms, biases and single learned vectors."""
    return not path.endswith(("/scale", "/bias", "/class_token", "newline"))


def optimizer_shardings(optimizer: optax.GradientTransformation, abstract: dict, shardings: dict, mesh):
    """Moments lie where their parameters lie; counters are replicated. `abstract`: {path: ShapeDtypeStruct}."""

    def place(at, leaf):
        # Moments are dictionaries over the same paths, whatever tree of states they stand in.
        path = next((key.key for key in reversed(at) if isinstance(key, jax.tree_util.DictKey)), None)
        same = path in abstract and leaf.shape == abstract[path].shape
        return shardings[path] if same else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, jax.eval_shape(optimizer.init, abstract))

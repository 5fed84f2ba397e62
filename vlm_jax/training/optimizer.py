"""The optimizer: AdamW, Adafactor or Muon under warm-up and cosine decay, behind a clip of the global gradient norm."""

import functools

import jax
import jax.numpy as jnp
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
    warmup = round(settings.warmup_fraction * steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else peak,
        peak_value=peak,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=peak * settings.end_lr_fraction,
    )
    # optax counts steps from 0: as it is, the first step would have rate 0 and the last would not reach `final`.
    return lambda count: schedule(count - start + 1)


MUON_BETA = 0.95
MUON_RMS = 0.2
"""Muon's updates have this root mean square before the learning rate, about AdamW's (Liu et al. 2025), so that one
learning rate suits both."""


def make_optimizer(settings, schedule: optax.Schedule, abstract: dict) -> optax.GradientTransformationExtraArgs:
    """The optimizer over {path: array}; weight decay spares norms and biases.

    Its `update` takes `finite`: where that is false its state is left as it was, but for the place in the schedule.

    With `muon`, kernels are stepped along their orthogonalised momentum (Jordan et al. 2024), everything else as by
    AdamW. `abstract`: {path: ShapeDtypeStruct} of what trains.
    """
    last = (
        optax.add_decayed_weights(
            settings.weight_decay, mask=lambda parameters: {path: decays(path) for path in parameters}
        ),
        optax.scale_by_learning_rate(schedule),
    )
    chosen = adamw = optax.chain(_adam(settings.b1, settings.b2, settings.eps), *last)
    if settings.name == "adafactor":
        chosen = optax.chain(
            # Its own scaling by the size of parameters is left out: one learning rate means the same for all three.
            _guarded(optax.adafactor(None, multiply_by_parameter_scale=False, clipping_threshold=1.0)),
            optax.scale(-1.0),  # it ends with a descent
            *last,
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
        chosen = optax.partition({"muon": _guarded(muon), "adamw": adamw}, labels)
    scales = {path: float(settings.lr_multipliers[group(path)]) for path in abstract}
    by_group = optax.stateless(lambda updates, _: {path: update * scales[path] for path, update in updates.items()})
    return optax.chain(optax.stateless(functools.partial(_clipped, settings.clip_norm)), chosen, by_group)


def _clipped(most: float, gradients: dict, _) -> dict:
    """As PyTorch clips: one factor for all, where optax's own divides every number of a copy of the gradients."""
    factor = jnp.minimum(1.0, most / optax.tree.norm(gradients))
    return jax.tree.map(lambda gradient: gradient * factor, gradients)


def _guarded(inner: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """`inner`, with a state that only a finite step changes."""

    def update(updates, state, parameters=None, *, finite=True, **_):
        updates, stepped = inner.update(updates, state, parameters)
        return updates, _if_finite(finite, stepped, state)

    return optax.GradientTransformationExtraArgs(inner.init, update)


def _if_finite(finite, new, old):
    def chosen(new, old):
        # The place in the schedule moves on in any case: it is that of the data.
        return new if isinstance(new, optax.ScaleByScheduleState) else jnp.where(finite, new, old)

    return jax.tree.map(chosen, new, old, is_leaf=lambda leaf: isinstance(leaf, optax.ScaleByScheduleState))


def set_back(optimizer_state, steps: int):
    """The state before the last steps, of which none was finite: they moved the place in the schedule alone."""

    def earlier(state):
        scheduled = isinstance(state, optax.ScaleByScheduleState)
        return optax.ScaleByScheduleState(state.count - steps) if scheduled else state

    return jax.tree.map(earlier, optimizer_state, is_leaf=lambda leaf: isinstance(leaf, optax.ScaleByScheduleState))


def _adam(b1: float, b2: float, eps: float) -> optax.GradientTransformationExtraArgs:
    """`optax.scale_by_adam`, guarded, whose updates are taken from the moments that are kept.

    optax takes them from new moments, of which the kept ones are a choice. XLA on CPUs then computes new moments twice,
    also inside the parameters' own fusion, which reads the old ones: it copies those first, since others are written
    over them (docs/experiments.md, 2026-11-22). Where a step is finite the values are the same.
    """

    def update(gradients, state, parameters=None, *, finite=True, **_):
        mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
        nu = optax.tree.update_moment_per_elem_norm(gradients, state.nu, b2, 2)
        new = optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)
        count, mu, nu = next_state = _if_finite(finite, new, state)
        first, second = optax.tree.bias_correction(mu, b1, count), optax.tree.bias_correction(nu, b2, count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), first, second), next_state

    return optax.GradientTransformationExtraArgs(optax.scale_by_adam().init, update)


def group(path: str) -> str:
    """The part of the model whose learning rate a parameter has.

    Embedding and head are the decoder's, a row separator the connector's.
    """
    if is_adapter(path):
        return "adapter"
    part = path.split("/")[0]
    return {"newline": "connector", "reducer": "connector"}.get(
        part, part if part in ("vision", "connector") else "decoder"
    )


def decays(path: str) -> bool:
    """Whether weight decay applies: to matrices, not to norms, biases and single learned vectors."""
    return not path.endswith(("/scale", "/bias", "/class_token", "newline", "reducer/weight"))


def optimizer_shardings(optimizer: optax.GradientTransformation, abstract: dict, shardings: dict, mesh):
    """Moments lie where their parameters lie; counters are replicated. `abstract`: {path: ShapeDtypeStruct}."""

    def place(at, leaf):
        # Moments are dictionaries over the same paths, whatever tree of states they stand in.
        path = next((key.key for key in reversed(at) if isinstance(key, jax.tree_util.DictKey)), None)
        same = path in abstract and leaf.shape == abstract[path].shape
        return shardings[path] if same else replicated(mesh)

    return jax.tree_util.tree_map_with_path(place, jax.eval_shape(optimizer.init, abstract))

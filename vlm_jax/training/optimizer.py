"""The optimizer: AdamW under warm-up and cosine decay, behind a clip of the global gradient norm."""

import jax
import optax

from vlm_jax.parallel.mesh import replicated


def learning_rate(settings, steps: int) -> optax.Schedule:
    """Linear warm-up over `warmup` (a share of the steps), then cosine to `final` times the peak."""
    warmup = round(settings.warmup * steps)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0 if warmup else settings.learning_rate,
        peak_value=settings.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=settings.learning_rate * settings.final,
    )
    # optax counts steps from 0: as it is, the first step would have rate 0 and the last would not reach `final`.
    return lambda count: schedule(count + 1)


def make_optimizer(settings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """AdamW over {path: array}; weight decay spares norms and biases."""
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            schedule,
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            mask=lambda parameters: {path: decays(path) for path in parameters},
        ),
    )


def decays(path: str) -> bool:
    """Whether weight decay applies: to matrices, not to norms and biases."""
    return not path.endswith(("/scale", "/bias"))


def optimizer_shardings(optimizer: optax.GradientTransformation, abstract: dict, shardings: dict, mesh):
    """Moments lie where their parameters lie; counters are replicated. `abstract`: {path: ShapeDtypeStruct}."""
    return optax.tree.map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, abstract),
        shardings,
        transform_non_params=lambda _: replicated(mesh),
    )

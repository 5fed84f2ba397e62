"""Options the training step and the inference functions are compiled with."""

import jax


def compiler_options(platform: str | None = None) -> dict[str, str]:
    """For `jax.jit(..., compiler_options=…)`, on this machine or for another platform.

    On CPUs XLA hands reductions to a library whose threads add partial sums in the order they finish: the same program
    on the same input gave two gradient norms (docs/experiments.md, 2026-11-21), so no run could be resumed exactly. Its
    products repeat themselves, but the small ones of attention are slower than XLA's own: nothing goes there. XLA's own
    repeat themselves with as many threads; another number of cores adds in another order.
    """
    if (platform or jax.default_backend()) != "cpu":
        return {}
    return {"xla_cpu_experimental_ynn_fusion_type": ""}


def options_of_what_runs_once() -> dict[str, int | bool]:
    """For programs that run a single time: on CPUs optimising takes far longer than they do."""
    if jax.default_backend() != "cpu":
        return {}
    options = {"xla_backend_optimization_level": 0}
    if jax.__version_info__ < (0, 11):  # XLA has only its newer emitters since, and refuses what it does not know
        options["xla_cpu_use_fusion_emitters"] = False
    return options

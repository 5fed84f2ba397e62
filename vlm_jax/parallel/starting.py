"""What a process settles with JAX before its first program: where programs are kept, and which backend is tried.

Programs of `scripts/` and `vlm_jax.load` share it. What a person has set, in the environment or in `jax.config`, stays.
"""

import glob
import importlib.util
import os

from vlm_jax.locations import user_cache

MIN_COMPILE_TIME = "jax_persistent_cache_min_compile_time_secs"
JAX_MIN_COMPILE_TIME = 1.0
"""JAX's own default, in seconds. A first answer takes some fifteen programs, most of which compile in less."""
DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*", "/dev/kfd")
"""Device files of TPUs, of NVIDIA's GPUs and of AMD's."""


def keep_compiled_programs() -> None:
    """Keeps compiled programs for the processes to come, unless a cache folder is set already.

    The folder is `vlm_jax/compiled` of the user's cache (XDG_CACHE_HOME, else ~/.cache). Where it cannot be written,
    nothing is kept and everything is compiled, as without it.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None or not jax.config.jax_enable_compilation_cache:
        return
    cache = user_cache("compiled")
    if cache is None:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if not os.access(cache, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))
    if getattr(jax.config, MIN_COMPILE_TIME) == JAX_MIN_COMPILE_TIME and MIN_COMPILE_TIME.upper() not in os.environ:
        jax.config.update(MIN_COMPILE_TIME, 0.0)


def tpu_is_absent() -> bool:
    """Whether libtpu is installed, to compile for TPUs, on a machine that shows no accelerator.

    JAX would look for a TPU at every start there, and complain at length.
    """
    return importlib.util.find_spec("libtpu") is not None and not any(map(glob.glob, DEVICES))


def leave_absent_tpu_alone() -> None:
    """Has JAX try the CPU alone where `tpu_is_absent` and no platform is set. Comes before JAX's first use of a device.

    In `jax.config`: the environment, which processes that are started from here would inherit, stays as it is.
    """
    import jax

    if not jax.config.jax_platforms and tpu_is_absent():
        jax.config.update("jax_platforms", "cpu")

"""A loaded model behind OpenAI's chat completions API. `server` is where to begin."""

import importlib.util
import sys

from vlm_jax.errors import InputError


def check_installed() -> None:
    """Raises InputError where what serving needs is not installed."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"serving needs {' and '.join(missing)}: {sys.executable} -m pip install 'vlm-jax[serve]'")

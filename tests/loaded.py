"""Loads what the scripts load, for the process that `started.run` forks theirs from. No device is looked for."""

import contextlib
import gc
import os
import sys

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is loaded, as the others are; `command_line.run` sets them too
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
sys.modules.setdefault("torch", None)

import grain  # noqa: E402, F401
import jax  # noqa: E402, F401
import optax  # noqa: E402, F401
import orbax.checkpoint  # noqa: E402, F401
import tensorboardX  # noqa: E402, F401
from flax import nnx  # noqa: E402, F401
from transformers import AutoTokenizer  # noqa: E402, F401

with contextlib.suppress(ImportError):  # of an extra
    import google.genai  # noqa: F401

gc.freeze()  # or each forked process would look for its own garbage among all this

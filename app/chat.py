"""A page to talk with a model about images: uploads, memory over turns, two models side by side, fewer visual tokens.

    streamlit run app/chat.py -- --model=runs/photos
    streamlit run app/chat.py -- --model=runs/photos --model=Qwen/Qwen2.5-VL-3B-Instruct --models_in_memory=2

Streamlit finds `app` here. Models are looked at, and the first is loaded, before the page is there; what a visitor sees
is `page`'s.
"""

import os
import sys

try:
    import streamlit as st
    from starlette.middleware import Middleware
except ImportError:
    raise SystemExit("error: streamlit: not installed; the chat page needs pip install -e '.[app]'") from None

from page_headers import SafeHeaders
from page_options import fail, read_options
from vlm_jax import terminal
from vlm_jax.errors import InputError
from vlm_jax.parallel.starting import tpu_is_absent

# Read by libraries when they load, which is below.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
if tpu_is_absent():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.modules.setdefault("torch", None)  # transformers would load it, for seconds; nothing here uses it

if __name__ == "__main__":  # Streamlit gives it another name
    fail(InputError("the page is served by streamlit: streamlit run app/chat.py -- --model=PATH"))
try:
    options = read_options(sys.argv[1:])
    import serving_state

    serving_state.start(options, say=terminal.say)
except InputError as error:
    fail(error)
except KeyboardInterrupt:
    os._exit(130)  # threads of XLA that still compile do not outlive the interpreter's tidying

app = st.App("page.py", middleware=[Middleware(SafeHeaders)])

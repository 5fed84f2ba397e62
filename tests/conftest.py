"""What holds for every test: eight virtual CPU devices, no network, and shapes checked against their annotations.

Must come before anything loads JAX, which reads the environment once.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# Compiled programs are kept between tests, and for the processes that tests start: compiling is most of their time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# Kept in a name, or the hook is taken out again when it is collected.
SHAPES_CHECKED = install_import_hook(["vlm_jax", "data_pipeline"], "beartype.beartype")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model as transformers saves it, with its tokenizer."""
    from tests.tiny_models import save_tiny

    folder = tmp_path_factory.mktemp("base") / "model"
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)
    return folder


@pytest.fixture(scope="session")
def store():
    """A Google Cloud Storage in memory, with the bucket `bucket`, that this process and those it starts find."""
    from tests.gcs_server import Store

    with Store("bucket") as store:
        yield store


def pytest_collection_modifyitems(items):
    """Files that start whole programs come first: two processes share the files."""
    first = ("scripts", "test_readme.py", "training")

    def place(item) -> int:
        return min((first.index(name) for name in (item.path.parent.name, item.path.name) if name in first), default=9)

    items.sort(key=place)

"""What holds for every test: eight virtual CPU devices, no network, and shapes checked against their annotations.

Must come before anything loads JAX, which reads the environment once.
"""

import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Every process of pytest-xdist, and what it starts, keeps to its own share of the cores. Otherwise the threads of XLA
# and PyTorch in one wait actively for cores that the other is using: two files side by side took a quarter longer.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    if share := sorted(os.sched_getaffinity(0))[worker :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]:
        os.sched_setaffinity(0, share)

# A suite in the background of a shell ignores Ctrl-C, and so would the programs that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

# What tests wait for is mostly XLA at work on models so small that their speed is nothing. Told not to optimise, and to
# write loops without its newer emitters, it is six times as quick. What is proven of programs as they ship (exact
# resumption, and the whole way of a person) is compiled as they ship: `started.as_shipped`.
quick = ["--xla_backend_optimization_level=0"]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # which knows no others, and dies of the flag
    # With one core there is nothing to be had from code that is generated in 32 parts, which takes longer.
    quick += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
for flag in quick:
    if flag.split("=")[0] not in os.environ["XLA_FLAGS"]:
        os.environ["XLA_FLAGS"] += f" {flag}"

# Compiled programs are kept between tests, and for the processes that tests start: compiling is most of their time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.02")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import pytest  # noqa: E402

from tests import shape_checks  # noqa: E402

# Python looks for unreachable cycles after every 700 new objects, and ever again through all that the libraries have
# made: a third of the time of importing the tests, and a tenth of that of running them. What is loaded stays
# (`pytest_collection_finish`); in programs that tests start all is as it ships.
gc.set_threshold(50_000, 10, 10)

# The modules that say shapes: checking all others as well took a quarter of the time. Not packing, which is called for
# every example: checking it took half the time of its tests.
UNCHECKED = {"data_pipeline.packing"}
ANNOTATED = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("vlm_jax", "data_pipeline")
    for path in (ROOT / package).rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
}
# Kept in a name, or the hook is taken out again when it is collected.
SHAPES_CHECKED = shape_checks.install(sorted(ANNOTATED - UNCHECKED))


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    """A tiny model as transformers saves it, with its tokenizer; of the family that a test's parameter or the `FAMILY`
    of its file names, or Qwen2.5-VL."""
    from tests.tiny_models import save_tiny

    family = getattr(request, "param", getattr(request.module, "FAMILY", "qwen2_5_vl"))
    folder = tmp_path_factory.mktemp("base") / "model"
    save_tiny(folder, family=family, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16)
    return folder


@pytest.fixture(scope="session")
def store():
    """A Google Cloud Storage in memory, with the bucket `bucket`, that this process and those it starts find."""
    from tests.gcs_server import Store

    with Store("bucket") as store:
        yield store


SLOW = (
    "test_sweep.py",
    "test_killed.py",
    "test_aligning.py",
    "test_over_http.py",
    "test_parity_world.py",
    "test_launch_vertex.py",
    "test_quickstart.py",
    "test_train.py",
    "test_parity.py",
    "test_assembled.py",
    "test_readme.py",
    "test_photos.py",
    "test_conversation.py",
    "test_program_cost.py",
    "test_meshes.py",
    "test_train_store.py",
    "test_selection.py",
    "test_train_adapters.py",
    "scripts",
    "training",
    "trackers",
    "app",
    "notebooks",
    "test_drawn.py",
    "test_resaved.py",
    "test_streaming.py",
    "test_quantised_tables.py",
    "test_starting.py",
    "test_buckets.py",
    "test_loader.py",
    "token_reduction",
    "test_reduction_file.py",
    "test_reduction_in_decoder.py",
    "test_fewer_tokens.py",
    "test_kept_tokens.py",
    "test_fuzz.py",
    "serving",
    "retrieval",
    "test_generating.py",
    "test_evaluation_run.py",
    "test_shared_prefixes.py",
    "test_copies.py",
    "test_against_rules.py",
    "test_source.py",
    "test_page.py",
    "test_vertex.py",
    "test_peft.py",
    "test_batches.py",
    "test_planted_faults.py",
    "test_beside_adapters.py",
    "test_page_looks.py",
)
"""Files and folders that take long, the longest first. `make test-fast` leaves them out."""
EVIDENCE = ("test_photos.py", "test_any_size.py", "test_train_step_benchmark.py")
"""Long evidence, of which `make test` has smaller versions (test_few_photos.py, test_buckets.py, test_parity.py), like
tests that are marked so themselves. `make test-all` runs it."""


def pytest_collection_finish():
    gc.freeze()


def pytest_collection_modifyitems(items):
    """What takes long comes first: two processes share the files, and neither should be left with a long one alone."""

    def place(item) -> int:
        names = (item.path.name, item.path.parent.name)
        return min((SLOW.index(name) for name in names if name in SLOW), default=len(SLOW))

    items.sort(key=place)
    for item in items:
        if place(item) < len(SLOW):
            item.add_marker(pytest.mark.slow)
        if item.path.name in EVIDENCE:
            item.add_marker(pytest.mark.evidence)

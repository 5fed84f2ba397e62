"""A training step against transformers (and peft) in PyTorch: the same weights, the same conversations and images.

    .venv/bin/python benchmarks/train_step.py                  # 5 M and 100 M parameters on the CPU
    .venv/bin/python benchmarks/train_step.py --device=gpu     # 3 B: full, LoRA and QLoRA, on one NVIDIA GPU

A step is forward, backward, clipping and AdamW. Images are processed and batches laid out before the clock runs, on
both sides; moving a batch to the device is timed. transformers gets what its processor makes with padding (on a GPU
also all samples in one row, if it can), under whichever of its attentions is fastest; vlm_jax gets packed rows, as many
batches. Both checkpoint every layer, or neither. Each side runs in a process of its own, and alone: the other's is
ended before, since two that hold gigabytes slow each other down even while one waits. On a CPU they alternate,
`--rounds` times.

On a CPU both read one checkpoint that transformers wrote, and their losses on the same samples must agree, before and
after a step; otherwise the exit status is 1. On a GPU weights are drawn on the device. MFU counts model FLOPs
(`vlm_jax.training.flops`), the same for both. What cannot run is left out by name. Wants PyTorch, transformers and
peft, which `make test` installs. On a CPU each side is measured with every allocator there is, and its fastest counts:
glibc's, which maps and clears the temporaries of an XLA program (one piece) and PyTorch's large tensors anew at every
step; the same with one arena for all threads, which keeps them, and makes small models slower; tcmalloc and jemalloc
where they are installed (Debian: libtcmalloc-minimal4, libjemalloc2). On a CPU vlm_jax takes one device or a device for
each core (`JAX_NUM_CPU_DEVICES`, `mesh.fsdp`), whichever is faster. PyTorch's threads spin while they wait: where
something else runs on the same cores, measure under OMP_WAIT_POLICY=PASSIVE.
"""

import argparse
import contextlib
import ctypes.util
import dataclasses
import importlib.util
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from side_by_side import Worker
from train_step_data import SHAPES, Settings, model_of

SIDES = {"transformers": "train_step_theirs", "vlm_jax": "train_step_ours"}
KEPT = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4000000000:glibc.malloc.trim_threshold=20000000000"
_ONE_ARENA = {"GLIBC_TUNABLES": f"{KEPT}:glibc.malloc.arena_max=1"}
_NEVER_GIVEN_BACK = "thp:always,dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"


def allocators() -> dict[str, dict[str, str]]:
    """What a process is started with, by who keeps its memory: glibc in two ways, and others that are installed."""
    known = {"glibc": {"GLIBC_TUNABLES": KEPT}, "one-arena": _ONE_ARENA}
    for name, library, more in (
        ("tcmalloc", "tcmalloc_minimal", {"TCMALLOC_RELEASE_RATE": "0"}),
        ("jemalloc", "jemalloc", {"MALLOC_CONF": _NEVER_GIVEN_BACK}),
    ):
        if sys.platform == "linux" and (found := ctypes.util.find_library(library)):
            known[name] = {"LD_PRELOAD": found, **more}
    return known


def compare(settings: Settings, rounds: int, turns: int, chosen: dict[str, dict[str, str]]) -> bool:
    """Measures both sides and prints what was found; whether their losses agree, as far as they are compared."""
    absent = left_out(settings)
    if settings.device == "cpu" and not absent:
        return alternate(settings, rounds, turns, chosen)
    seconds, facts = {}, {}
    for side in SIDES:
        if side == "transformers" and absent:
            continue
        try:
            worker = Worker(SIDES[side], settings)
            worker("turn")  # kernels are chosen and memory is taken the first time
            seconds[side] = [worker("turn") for _ in range(turns)]
            facts[side] = worker("facts")
            worker.close()
        except RuntimeError as error:
            absent = f"{absent}; {side}: {error}".lstrip("; ")
    table(settings, seconds, facts)
    if absent:
        print(f"  left out: {absent}", flush=True)
    return "vlm_jax" in seconds


def alternate(settings: Settings, rounds: int, turns: int, chosen: dict[str, dict[str, str]]) -> bool:
    """On a CPU: the sides in turn, with each allocator; whether their losses agree."""
    taken = {side: {name: [] for name in chosen} for side in SIDES}
    facts, losses = {}, {}
    for _ in range(rounds):
        for side in ("vlm_jax", "transformers"):
            for name, variables in chosen.items():
                with environment(variables):
                    worker = Worker(SIDES[side], settings)
                if side in losses:
                    worker("turn")  # its memory is taken the first time
                elif side == "vlm_jax":
                    numbers, losses[side] = worker("losses")
                else:
                    losses[side] = worker("losses", numbers)
                taken[side][name] += [worker("turn") for _ in range(turns)]
                facts[side, name] = worker("facts")
                worker.close()
    seconds, known = {}, {}
    for side, found in taken.items():
        middle = {name: statistics.median(each) for name, each in found.items()}
        best = min(middle, key=middle.get)
        seconds[side], known[side] = found[best], facts[side, best]
        if len(middle) > 1:
            known[side].setdefault("tried", {}).update({f"turns with {name}": one for name, one in middle.items()})
    table(settings, seconds, known)
    return agree(settings, losses)


@contextlib.contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """With which processes are started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def left_out(settings: Settings) -> str:
    """Why transformers' side of a mode cannot run, or nothing."""
    if settings.mode == "qlora" and not importlib.util.find_spec("bitsandbytes"):
        return "transformers + peft QLoRA: bitsandbytes is not installed"
    if settings.mode != "full" and not importlib.util.find_spec("peft"):
        return f"transformers + peft {settings.mode}: peft is not installed"
    return ""


def table(settings: Settings, seconds: dict[str, list[float]], facts: dict[str, dict]) -> None:
    ours = facts.get("vlm_jax")
    samples = settings.samples * settings.steps
    head = f"{settings.preset} {settings.lengths} {settings.mode}: {samples} samples, {settings.samples} a step"
    if ours:
        head += f", {ours['parameters']:,} parameters, {ours['tokens']:,} tokens and {ours['patches']:,} patches a turn"
    print(f"\n{head}, layers {'recomputed' if settings.remat else 'kept'} in the backward pass")
    for side, known in facts.items():
        middle = statistics.median(seconds[side])
        parts = [f"{side:12} {samples / middle:9.2f} samples/s"]
        if ours:
            parts.append(f"{ours['tokens'] / middle:8,.0f} tokens/s")
            if ours["peak"]:
                parts.append(f"MFU {ours['flops'] / middle / ours['peak']:.1%}")
        if known["memory"]:
            parts.append(f"peak memory {known['memory'] / 2**30:.1f} GiB")
        other = f" ({known['shuffled']:.1%} on average over orders of the samples)" if "shuffled" in known else ""
        parts.append(f"padding {known['padding']:.1%} of tokens{other}")
        if "patch_padding" in known:
            parts.append(f"{known['patch_padding']:.1%} of patch slots")
        print("  " + ", ".join(parts))
        spread = f"turns {min(seconds[side]):.2f} … {max(seconds[side]):.2f} s"
        print(
            f"  {'':12} {known['how']}; {known['precision']}; {known['trained']:,} train; {known['library']}; {spread}"
        )
        if "tried" in known:
            tried = (
                f"{name} {found if isinstance(found, str) else f'{found:.2f} s'}"
                for name, found in known["tried"].items()
            )
            print(f"  {'':12} tried: {', '.join(tried)}")
        if "compiling" in known:
            print(
                f"  {'':12} {known['steps']} steps a turn, compiled in {known['compiling']:.0f} s, on {known['device']}"
            )
    if len(seconds) == 2:
        theirs, mine = seconds["transformers"], seconds["vlm_jax"]
        each = [one / other for one, other in zip(theirs, mine, strict=True)]
        ratio = statistics.median(theirs) / statistics.median(mine)
        token, patch, supervised = ours["costs"]
        padded = ours["tokens"] / (1 - facts["transformers"]["padding"])
        products = (padded * (token + supervised) + ours["patches"] * patch) / ours["products"]
        print(f"  products of padded batches, without attention's: {products:.2f} times those of packed rows")
        print(f"  ratio of medians {ratio:.2f} (turn by turn {min(each):.2f} … {max(each):.2f})", flush=True)


def agree(settings: Settings, losses: dict[str, list[float]]) -> bool:
    mine, theirs = losses["vlm_jax"], losses["transformers"]
    # Adapters begin at random numbers of each side's own, which show after a step; a quantised base differs at once.
    exact = {"full": [1e-4, 2e-3], "lora": [1e-4, math.inf], "qlora": [math.inf, math.inf]}[settings.mode]
    sound = all(abs(a - b) <= share * abs(b) for a, b, share in zip(mine, theirs, exact, strict=True))
    verdict = (
        f"losses {'agree' if sound else 'DIFFER'}: before a step transformers {theirs[0]:.5f}, vlm_jax {mine[0]:.5f}"
    )
    print(f"  {verdict}; after it {theirs[1]:.5f}, {mine[1]:.5f}", flush=True)
    return sound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--preset", help=f"of {', '.join(SHAPES)}, with commas between (default: 5m,100m; on a GPU 3b)")
    parser.add_argument("--lengths", help="of ragged, mixed, equal (default: all; on a GPU ragged)")
    parser.add_argument("--modes", help="of full, lora, qlora (default: full; on a GPU all)")
    parser.add_argument("--layouts", help="of padded, flat: tried with transformers (default: padded; on a GPU both)")
    parser.add_argument("--samples", type=int, help="a step on average (default: 16)")
    parser.add_argument("--steps", type=int, help="a turn (default: 4; on a GPU 8)")
    parser.add_argument("--rounds", type=int, default=3, help="the sides alternate on a CPU (default: %(default)s)")
    parser.add_argument("--turns", type=int, help="through the data, in a round (default: 2; on a GPU 5)")
    parser.add_argument("--visual_tokens", type=int, help="of an image at most (default: 256; on a GPU 1024)")
    parser.add_argument("--remat", choices=("none", "full"), help="of both sides (default: none; on a GPU full)")
    parser.add_argument("--allocators", help="on a CPU, with commas between (default: all that are installed)")
    options = parser.parse_args()
    gpu = options.device == "gpu"
    turns = options.turns or (5 if gpu else 2)
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    # Before any process starts: no network, and memory that is taken as it is needed, so that a peak means something.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    os.environ["JAX_PLATFORMS"] = "cuda" if gpu else "cpu"
    os.environ["JAX_NUM_CPU_DEVICES"] = str(threads)
    known = allocators()
    names = options.allocators.split(",") if options.allocators else list(known)
    if absent := [name for name in names if name not in known]:
        sys.exit(f"--allocators: {', '.join(absent)} is not installed; known here: {', '.join(known)}")
    if gpu:
        os.environ.setdefault("GLIBC_TUNABLES", KEPT)
    print(f"{options.device}, {threads} cores; {options.rounds if not gpu else 1} rounds of {turns} turns", flush=True)
    sound = True
    for preset in (options.preset or ("3b" if gpu else "5m,100m")).split(","):
        with tempfile.TemporaryDirectory() as folder:
            if not gpu:
                write(folder, preset)
            settings = Settings(
                preset=preset,
                folder="" if gpu else folder,
                lengths="",
                mode="",
                samples=options.samples or 16,
                steps=options.steps or (8 if gpu else 4),
                visual_tokens=options.visual_tokens or (1024 if gpu else 256),
                remat=(options.remat or ("full" if gpu else "none")) == "full",
                device=options.device,
                threads=threads,
                layouts=tuple((options.layouts or ("padded,flat" if gpu else "padded")).split(",")),
            )
            for lengths in (options.lengths or ("ragged" if gpu else "ragged,mixed,equal")).split(","):
                for mode in (options.modes or ("full,lora,qlora" if gpu else "full")).split(","):
                    sound &= compare(
                        dataclasses.replace(settings, lengths=lengths, mode=mode),
                        options.rounds,
                        turns,
                        {name: known[name] for name in names},
                    )
    if not sound:
        sys.exit("the two sides did not do the same work, or one did not run")


def write(folder: str, preset: str, dtype: str = "float32") -> None:
    """A checkpoint with random weights; in a process of its own, which takes PyTorch away with it."""
    context = multiprocessing.get_context("spawn")
    writing = context.Process(target=_write, args=(folder, preset, dtype))
    writing.start()
    writing.join()
    if writing.exitcode:
        sys.exit("the checkpoint could not be written")


def _write(folder: str, preset: str, dtype: str) -> None:
    from train_step_theirs import write_checkpoint

    write_checkpoint(Path(folder), model_of(preset), dtype)


if __name__ == "__main__":
    main()

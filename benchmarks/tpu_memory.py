"""What training steps of published sizes take on TPU slices, from the compiler, without a TPU.

    .venv/bin/python benchmarks/tpu_memory.py --output=runs/tpu_memory [--only=NAME,NAME] [--policies]

Each line is one call of `scripts/compile_check.py`; it takes minutes, and lines that are in the output folder are not
compiled again. The rows are 2,048 tokens and 4,608 patch slots (1,152 image tokens); bfloat16, float32 masters and
optimizer state of what trains. Sizes are GiB (2³⁰ bytes) a chip. With --policies each line is compiled with every
policy of `train.remat`; without, with `full`, unless its name ends in another one behind a slash.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
POLICIES = ("none", "products", "offload", "projections", "attention", "full")
FSDP = ["--config.mesh.data=1", "--config.mesh.fsdp=-1"]
LINES = {
    # name: (config, preset, slice, rows, more)
    "full 3B": ("qwen2_5_vl_3b_full", "3b", "v5e:2x4", 8, FSDP),
    "LoRA 7B": ("qwen2_5_vl_7b_lora", "7b", "v5e:2x4", 8, FSDP),
    "LoRA 3B": ("qwen2_5_vl_3b_lora", "3b", "v5e:1x1", 1, []),
    "QLoRA 3B": ("qwen2_5_vl_3b_qlora", "3b", "v5e:1x1", 1, []),
    "QLoRA 7B": ("qwen2_5_vl_3b_qlora", "7b", "v5e:1x1", 1, []),
    "full 7B": ("qwen2_5_vl_3b_full", "7b", "v5e:4x8", 32, FSDP),
    "full 7B v5p": ("qwen2_5_vl_3b_full", "7b", "v5p:2x2x2", 8, FSDP),
    # Over all 64 chips of a cube the compiler gathers by summing up, which sends twice as much.
    "LoRA 72B": ("qwen2_5_vl_7b_lora", "72b", "v5p:4x4x4", 64, ["--config.mesh.data=2", "--config.mesh.fsdp=-1"]),
    "full Qwen3 2B": ("qwen3_vl_2b_full", "qwen3-vl-2b", "v5e:2x4", 8, FSDP),
    "LoRA Qwen3 8B": ("qwen3_vl_4b_lora", "qwen3-vl-8b", "v5e:2x4", 8, FSDP),
    "QLoRA Qwen3 4B": ("qwen3_vl_8b_qlora", "qwen3-vl-4b", "v5e:1x1", 1, []),
    "LoRA Qwen3 32B": ("qwen3_vl_4b_lora", "qwen3-vl-32b", "v5p:2x2x4", 16, FSDP),
    "full 3B two slices": ("qwen2_5_vl_3b_two_slices", "3b", "2*v5e:4x4", 32, []),
    # The same step with three ways to train, on one chip that holds them all.
    "full 3B one chip": ("qwen2_5_vl_3b_full", "3b", "v5p:1x1x1", 1, FSDP),
    "LoRA 3B one chip": ("qwen2_5_vl_3b_lora", "3b", "v5p:1x1x1", 1, []),
    "QLoRA 3B one chip": ("qwen2_5_vl_3b_qlora", "3b", "v5p:1x1x1", 1, []),
}
HEADS = (
    "step, slice, rows, remat, trained with optimizer, frozen, temporaries, total, of HBM, TFLOP a chip, sent, "
    "of needed, bounds in ms: products / memory / links / network, MFU at most"
)
GB = 1 << 30


def compiled(name: str, output: Path) -> dict:
    """What `scripts/compile_check.py --json` says of a line, `NAME` or `NAME/POLICY`."""
    line, _, policy = name.partition("/")
    config, preset, topology, rows, more = LINES[line]
    kept = output / f"{name.replace(' ', '_').replace('/', '-')}.json"
    command = [
        sys.executable,
        str(ROOT / "scripts" / "compile_check.py"),
        f"--config={ROOT / 'configs' / config}.py",
        f"--topology={topology}",
        f"--preset={preset}",
        f"--config.batch.rows={rows}",
        f"--config.train.remat={policy or 'full'}",
        "--json",
        *more,
    ]
    if not kept.is_file():
        ran = subprocess.run(command, capture_output=True, text=True)
        if not ran.stdout:
            return {"error": ran.stderr.strip().splitlines()[-1]}
        kept.write_text(ran.stdout)
    return json.loads(kept.read_text())


def row(name: str, found: dict) -> str:
    if "error" in found:
        return f"| {name} | {found['error']} |"
    memory, limit, chips = found["memory"], found["limit"], found["devices"]
    sizes = [found["trained"], found["frozen"], memory["temporaries"], found["total"]]
    sent, bounds = sum(size for _, size in found["collectives"].values()), found["bounds"]
    times = [bounds[part] for part in ("products", "memory", "links", "network")]
    cells = [
        name.partition("/")[0],
        found["topology"],
        str(found["rows"]),
        found["remat"],
        *(f"{size / GB:.2f}" for size in sizes),
        f"{found['total'] / limit:.0%} of {limit / GB:.0f}" + ("" if found["fits"] else ", DOES NOT FIT"),
        f"{found['flops'] / chips / 1e12:.0f}",
        f"{sent / GB:.1f}",
        f"{sent / found['needed']:.2f}" if found["needed"] else "–",
        " / ".join("–" if seconds is None else f"{1000 * seconds:.0f}" for seconds in times),
        f"{bounds['mfu']:.0%}",
    ]
    if not any("splash" in kernel for kernel in found["kernels"]):
        cells[0] += " (NO SPLASH)"
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder that keeps each line's result")
    parser.add_argument("--only", default="", help="names of lines, commas between; all where empty")
    parser.add_argument("--policies", action="store_true", help="each line with every policy of train.remat")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(LINES)
    unknown = {name.partition("/")[0] for name in names} - set(LINES)
    if unknown:
        sys.exit(f"no such line: {', '.join(sorted(unknown))}; known are {', '.join(LINES)}")
    if options.policies:
        names = [f"{name}/{policy}" for name in names for policy in POLICIES]
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"| {HEADS.replace(', ', ' | ')} |\n|{'---|' * 14}", flush=True)
    missed = []
    for name in names:
        found = compiled(name, options.output)
        print(row(name, found), flush=True)
        missed += [name] if "error" in found and "/" not in name else []  # a policy may well not fit
    sys.exit(f"not compiled: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()

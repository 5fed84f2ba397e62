"""What training steps of published sizes take on TPU slices, from the compiler, without a TPU.

    .venv/bin/python benchmarks/tpu_memory.py --output=runs/tpu_memory [--only=NAME,NAME]

Each line is one call of `scripts/compile_check.py`; it takes minutes, and lines that are in the output folder are not
compiled again. The rows are 2,048 tokens and 4,608 patch slots (1,152 image tokens); bfloat16, float32 masters and
optimizer state of what trains. Sizes are GiB (2³⁰ bytes) a chip.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
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
    "LoRA 72B": ("qwen2_5_vl_7b_lora", "72b", "v5p:4x4x4", 64, FSDP),
    "full Qwen3 2B": ("qwen3_vl_2b_full", "qwen3-vl-2b", "v5e:2x4", 8, FSDP),
    "LoRA Qwen3 8B": ("qwen3_vl_4b_lora", "qwen3-vl-8b", "v5e:2x4", 8, FSDP),
    "QLoRA Qwen3 4B": ("qwen3_vl_8b_qlora", "qwen3-vl-4b", "v5e:1x1", 1, []),
    "LoRA Qwen3 32B": ("qwen3_vl_4b_lora", "qwen3-vl-32b", "v5p:2x2x4", 16, FSDP),
    # The same step with three ways to train, on one chip that holds them all.
    "full 3B one chip": ("qwen2_5_vl_3b_full", "3b", "v5p:1x1x1", 1, FSDP),
    "LoRA 3B one chip": ("qwen2_5_vl_3b_lora", "3b", "v5p:1x1x1", 1, []),
    "QLoRA 3B one chip": ("qwen2_5_vl_3b_qlora", "3b", "v5p:1x1x1", 1, []),
}
GB = 1 << 30


def compiled(name: str, output: Path) -> dict:
    config, preset, topology, rows, more = LINES[name]
    kept = output / f"{name.replace(' ', '_')}.json"
    command = [
        sys.executable,
        str(ROOT / "scripts" / "compile_check.py"),
        f"--config={ROOT / 'configs' / config}.py",
        f"--topology={topology}",
        f"--preset={preset}",
        f"--config.batch.rows={rows}",
        "--json",
        *more,
    ]
    if not kept.is_file():
        ran = subprocess.run(command, capture_output=True, text=True)
        if not ran.stdout:
            sys.exit(f"{name}: {ran.stderr.strip().splitlines()[-1]}")
        kept.write_text(ran.stdout)
    return json.loads(kept.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder that keeps each line's result")
    parser.add_argument("--only", default="", help="names of lines, commas between; all where empty")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(LINES)
    unknown = set(names) - set(LINES)
    if unknown:
        sys.exit(f"no such line: {', '.join(sorted(unknown))}; known are {', '.join(LINES)}")
    options.output.mkdir(parents=True, exist_ok=True)
    heads = "step, slice, rows, trained with optimizer, frozen, temporaries, total, of HBM, attention, TFLOP a chip"
    print(f"| {heads.replace(', ', ' | ')} |\n|{'---|' * 10}", flush=True)
    for name in names:
        found = compiled(name, options.output)
        memory, limit = found["memory"], found["limit"]
        kernels = "splash" if any("splash" in kernel for kernel in found["kernels"]) else "NO SPLASH"
        sizes = [found["trained"], found["frozen"], memory["temporaries"], found["total"]]
        print(
            f"| {name} | {found['topology']} | {found['rows']} | "
            + " | ".join(f"{size / GB:.2f}" for size in sizes)
            + f" | {found['total'] / limit:.0%} of {limit / GB:.0f} | {kernels} | "
            f"{found['flops'] / found['devices'] / 1e12:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

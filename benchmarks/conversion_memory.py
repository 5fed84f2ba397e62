"""What conversions, merges and loads of a checkpoint of a published size take in memory.

    .venv/bin/python benchmarks/conversion_memory.py [--folder=DIR] [--preset=3b]

Makes a random bfloat16 checkpoint of the preset, tensor by tensor, in shards (3B: 7.5 GB; the folder wants three and a
half times that), and removes it in the end. Then, each in a process of its own whose private resident memory
(RssAnon + RssShmem of /proc: what is mapped from files does not count) is read a hundred times a second:

- `scripts/convert_checkpoint.py` from Hugging Face to Orbax and back, on one device and on eight virtual ones;
- loads of both onto one device, and onto eight, sharded;
- the merge of a PEFT adapter into it. Its values are multiples of 1/64, so that products are exact in any order, and
  peft itself, layer by layer, must come to the same bytes;
- loads in nf4, without and with the token tables in 8 bits.

Prints a table. Exit status 1 where a byte differs or a limit is passed: 1.5 times the checkpoint on one device, 1.3 on
eight, 4 GB for the merge, 0.35 of bfloat16 for the weights in nf4. What other presets take in nf4 follows from shapes.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GB = 10**9
SHARD = 4 * GB
RANK, ALPHA = 16, 32.0


def make_checkpoint(folder: Path, preset: str) -> int:
    """Writes the random model; the bytes of its tensors."""
    import dataclasses

    from vlm_jax.checkpoint import safetensors_file
    from vlm_jax.checkpoint.names import name_table
    from vlm_jax.models.hf_config import to_hf
    from vlm_jax.models.parameters import abstract_parameters
    from vlm_jax.models.presets import PRESETS
    from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
    from vlm_jax.processing.new_tokenizer import write_tokenizer

    folder.mkdir(parents=True)
    ids = write_tokenizer(folder, ["a few words to merge, a few words more"] * 3, 512)
    config = dataclasses.replace(
        PRESETS[preset],
        image_token=ids["<|image_pad|>"],
        video_token=ids["<|video_pad|>"],
        vision_start_token=ids["<|vision_start|>"],
        vision_end_token=ids["<|vision_end|>"],
    )
    config_json = to_hf(config, "bfloat16") | {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]}
    (folder / "config.json").write_text(json.dumps(config_json, indent=2))
    (folder / "preprocessor_config.json").write_text(json.dumps(DynamicResolution().to_json("Qwen2_5_VLProcessor")))
    dtype, shards, sizes = safetensors_file.DTYPES["BF16"], [{}], [0]
    for entry in name_table(config):
        shape = abstract_parameters(config)[entry.path].shape
        shape = tuple(entry.transform.shape(shape if entry.layers is None else shape[1:]))
        size = int(np.prod(shape)) * dtype.itemsize
        for name in entry.tensors():
            if sizes[-1] + size > SHARD:
                shards.append({})
                sizes.append(0)
            shards[-1][name] = (dtype, shape)
            sizes[-1] += size
    weight_map = {}
    for number, described in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors_file.write(folder / name, described, drawn(described, number))
        weight_map |= dict.fromkeys(described, name)
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(sizes)


def drawn(described: dict, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Random bfloat16 of magnitudes from 1/128 to 1/8."""
    rng = np.random.default_rng(seed)
    for name, (dtype, shape) in described.items():
        bits = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint16)
        yield name, ((bits & 0x81FF) | 0x3C00).view(dtype).reshape(shape)


def make_adapter(folder: Path, model: Path) -> None:
    from vlm_jax.adapters.lora import Lora, is_adapter
    from vlm_jax.checkpoint import description, peft_folder
    from vlm_jax.models.parameters import abstract_parameters

    config, lora = description.read_config(model), Lora(RANK, ALPHA, targets="attention+mlp+vision+connector")
    rng = np.random.default_rng(0)
    parameters = {
        path: rng.integers(-8, 9, leaf.shape, dtype=np.int8).astype(np.float32) / 64
        for path, leaf in abstract_parameters(config, attach=[lora.attach]).items()
        if is_adapter(path)
    }
    peft_folder.write(folder, config, lora, parameters, base=str(model))


def tensors(folder: Path) -> dict[str, np.ndarray]:
    from vlm_jax.checkpoint import safetensors_file

    views = {}
    for path in sorted(folder.glob("*.safetensors")):
        views |= safetensors_file.mapped(path)
    return views


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold tensors of the same names, shapes, dtypes and bytes."""
    ours, theirs = tensors(one), tensors(other)
    return ours.keys() == theirs.keys() and all(
        (tensor.dtype, tensor.shape) == (theirs[name].dtype, theirs[name].shape)
        and np.array_equal(tensor.view(np.uint16), theirs[name].view(np.uint16))
        for name, tensor in ours.items()
    )


def merged_as_peft_does(base: Path, adapter: Path, merged: Path) -> tuple[int, int]:
    """(tensors that peft's own merge changes, how many of all tensors differ from what it gives), layer by layer."""
    import peft
    import torch
    from safetensors.numpy import load_file

    low_rank, before, after = load_file(adapter / "adapter_model.safetensors"), tensors(base), tensors(merged)
    changed = wrong = 0
    for name, tensor in before.items():
        wanted = tensor.view(np.uint16)
        module = memory_module(name)
        a = low_rank.get(f"base_model.model.{module}.lora_A.weight")
        if a is not None:
            changed += 1
            layer = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False, dtype=torch.bfloat16, device="meta")
            layer.to_empty(device="cpu")
            layer.weight.data = torch.from_numpy(wanted.astype(np.uint16)).view(torch.bfloat16)
            made = peft.tuners.lora.Linear(
                layer, "default", peft.LoraConfig(r=RANK, lora_alpha=ALPHA), r=RANK, lora_alpha=ALPHA
            )
            b = low_rank[f"base_model.model.{module}.lora_B.weight"]
            made.lora_A["default"].weight.data = torch.from_numpy(a)
            made.lora_B["default"].weight.data = torch.from_numpy(b)
            made.merge()
            wanted = made.get_base_layer().weight.data.view(torch.uint16).numpy()
        wrong += not np.array_equal(after[name].view(np.uint16), wanted)
    return changed, wrong


def memory_module(name: str) -> str:
    from vlm_jax.checkpoint.names import memory_name

    return memory_name(name).removesuffix(".weight")


def watched(command: list[str], devices: int = 1) -> tuple[int, float, str]:
    """(peak private resident memory in bytes, seconds, what it printed) of a process."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    began, peak = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, *command], stdout=out, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            peak = max(peak, private(process.pid))
            time.sleep(0.01)
        out.seek(0)
        output = out.read()
    if process.returncode:
        sys.exit(f"{' '.join(command)}:\n{output}")
    return peak, time.monotonic() - began, output


def private(pid: int) -> int:
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return sum(int(status[name].split()[0]) for name in ("RssAnon", "RssShmem")) * 1024
    except (FileNotFoundError, KeyError, ProcessLookupError):  # it has ended
        return 0


def convert(source: Path, target: Path, form: str, devices: int = 1) -> tuple[int, float, str]:
    script = str(ROOT / "scripts" / "convert_checkpoint.py")
    return watched([script, f"--source={source}", f"--target={target}", f"--format={form}"], devices)


def load(model: Path, *more: str, devices: int = 1) -> tuple[int, float, dict]:
    script = str(ROOT / "benchmarks" / "conversion_memory_load.py")
    peak, seconds, output = watched([script, f"--model={model}", *more], devices)
    return peak, seconds, json.loads(output.splitlines()[-1])


def nf4_share(preset: str, tables: bool) -> tuple[int, float]:
    """Bytes of the weights in nf4, and their share of those in bfloat16, from the shapes alone."""
    import jax.numpy as jnp

    from vlm_jax.adapters import quantised, quantised_tables
    from vlm_jax.models.parameters import abstract_parameters
    from vlm_jax.models.presets import PRESETS

    attach = [functools.partial(quantised.attach, kind="nf4")] + ([quantised_tables.attach] if tables else [])
    sizes = [
        sum(
            leaf.size * leaf.dtype.itemsize
            for leaf in abstract_parameters(PRESETS[preset], jnp.bfloat16, **how).values()
        )
        for how in ({"attach": attach}, {})
    ]
    return sizes[0], sizes[0] / sizes[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="a folder to work in, emptied in the end (default: a temporary one)"
    )
    parser.add_argument("--preset", default="3b", help="shapes (default: %(default)s)")
    options = parser.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="conversion_memory-", dir=options.folder))
    try:
        sys.exit(measure(work, options.preset))
    finally:
        shutil.rmtree(work)


def measure(work: Path, preset: str) -> int:
    """Prints the table; 1 where a limit is passed."""
    base, adapter, orbax, back = (work / name for name in ("base", "adapter", "orbax", "back"))
    size = make_checkpoint(base, preset)
    make_adapter(adapter, base)
    files = len(list(base.glob("*.safetensors")))
    print(f"{preset}: {size / GB:.2f} GB bfloat16 in {files} shards, adapter of rank {RANK} on every linear layer\n")
    print(
        "| what | devices | peak, GB | of the checkpoint | at most | seconds | outcome |\n|---|---|---|---|---|---|---|"
    )
    failed = []

    def show(what: str, devices: int, peak: int, seconds: float, limit: float, outcome: str, good: bool = True) -> None:
        if not good or peak > limit * size:
            failed.append(what)
        print(
            f"| {what} | {devices} | {peak / GB:.2f} | {peak / size:.2f} | {limit:.2f} | {seconds:.0f} | {outcome} |",
            flush=True,
        )

    for devices, limit in ((1, 1.5), (8, 1.3)):
        peak, seconds, _ = convert(base, orbax, "orbax", devices)
        show("HF → Orbax", devices, peak, seconds, limit, "")
        peak, seconds, _ = convert(orbax, back, "hf", devices)
        equal = same(base, back)
        show("Orbax → HF", devices, peak, seconds, limit, "all bytes equal" if equal else "BYTES DIFFER", equal)
        shutil.rmtree(back)
        for model, name in ((base, "HF"), (orbax, "Orbax")):
            peak, seconds, found = load(model, *(["--sharded"] if devices > 1 else []), devices=devices)
            show(f"load {name}, bfloat16", devices, peak, seconds, limit, f"weights {found['weights'] / GB:.2f} GB")
        shutil.rmtree(orbax)
    merged = work / "merged"
    peak, seconds, _ = convert(adapter, merged, "hf")
    changed, wrong = merged_as_peft_does(base, adapter, merged)
    outcome = f"{changed} tensors merged, all as by peft" if not wrong else f"{wrong} TENSORS DIFFER FROM PEFT'S"
    show("merge of an adapter, HF → HF", 1, peak, seconds, 4 * GB / size, outcome, not wrong and changed > 0)
    shutil.rmtree(merged)
    for more in (["--quantise=nf4"], ["--quantise=nf4", "--tables"]):
        peak, seconds, found = load(base, *more)
        share, grown = found["weights"] / size, (found["after"] - found["before"]) / size
        outcome = f"weights {found['weights'] / GB:.2f} GB = {share:.3f} of bfloat16; resident grew by {grown:.3f}"
        what = "load HF, nf4" + (", tables int8" if "--tables" in more else "")
        show(what, 1, peak, seconds, 1.0, outcome, share <= 0.35)
    print(
        "\n| weights in nf4, from shapes | GB | of bfloat16 | tables in int8, GB | of bfloat16 |\n|---|---|---|---|---|"
    )
    for name in ("3b", "7b", "32b", "72b", "qwen2-2b", "qwen2-7b"):
        (plain, share), (packed, less) = nf4_share(name, False), nf4_share(name, True)
        print(f"| {name} | {plain / GB:.2f} | {share:.3f} | {packed / GB:.2f} | {less:.3f} |")
    if failed:
        print(f"\nfailed: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    main()

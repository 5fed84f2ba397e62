"""Seeded mutations of every kind of file that is read: each is read, or refused in a line, and nothing else happens.

    .venv/bin/python benchmarks/fuzz.py --count=100000

A small sound file of each kind is made; bits are flipped, pieces cut out, doubled and exchanged, numbers and brackets
put in. What a mutation comes to is "read" (of a checkpoint, whose files have digests: read with equal weights),
"refused" (InputError, each fault one line of at most 2,000 letters), or anything else: another exception, a crash, more
than --seconds. The seed of each of those is printed, and the exit status is 1.
"""

import argparse
import collections
import json
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

import absl.logging
import numpy as np
import PIL.Image

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.records import Record, images_of
from data_pipeline.sources import writing
from vlm_jax import terminal
from vlm_jax.checkpoint import description, export, peft_settings, pth, weight_files
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processor_file import read as read_image_processor
from vlm_jax.processing.images import FORMATS, open_image

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"
FORK = multiprocessing.get_context("fork")
SLOW = {"checkpoint": 0.02}
"""Shares of kinds of which a reading takes long."""
GROUP = 250
"""Mutations a worker is given at once."""
_TOKENS = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"\x00",
           b"\xff", b"\xed\xa0\x80", b"\r\n", b"<image>", b"[" * 3000)  # fmt: skip


def picture(kind: str) -> bytes:
    folder = Path(tempfile.mkdtemp())
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "a", kind)
    held = (folder / "a").read_bytes()
    shutil.rmtree(folder)
    return held


def records() -> list[Record]:
    def turns(number: int) -> list[dict]:
        part = {"type": "image", "image": picture("PNG")}
        asked = [part, {"type": "text", "text": f"What is {number}?"}]
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": "A thing."}]

    return [Record(str(number), turns(number)) for number in range(3)]


def read_data(path: Path) -> None:
    read, faults = sources.read(path)
    embedded = [image for record in read for image in images_of(record) if isinstance(image, bytes)]
    refuse([*faults, *check_images(read)[1]] if embedded else faults)


def refuse(faults: list[str]) -> None:
    if faults:
        raise InputError(faults)


def weights(path: Path) -> dict[str, bytes]:
    source = open_model(str(path))
    source.check()
    return {name: np.asarray(array).tobytes() for name, array in source.read().items()}


class Kind:
    """A sound file or folder, which of its files are mutated, and how it is read."""

    def __init__(self, name: str, made: Path, files: list[str], read: Callable[[Path], object], *, equal: bool = False):
        self.name, self.made, self.files, self.read, self.equal = name, made, files, read, equal


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind, made below a folder where it is not there yet."""
    made = folder / "made"
    if not made.is_dir():
        maker = FORK.Process(target=make, args=(made,))  # what JAX starts is not forked later
        maker.start()
        maker.join()
    data = {path.name: path for path in (made / "data").iterdir()}
    found = [Kind(name, path, [""], read_data) for name, path in sorted(data.items())]
    found += [Kind(path.name, path, [""], open_image) for path in sorted((made / "pictures").iterdir())]
    model = made / "model"
    found += [
        Kind("config.json", model, ["config.json"], description.read_config),
        Kind("preprocessor_config.json", model, ["preprocessor_config.json"], read_image_processor),
        Kind("adapter_config.json", made / "adapter", ["adapter_config.json"], peft_settings.read_settings),
        Kind("adapter_model.safetensors", made / "adapter", ["adapter_model.safetensors"], read_adapter),
        Kind("model.safetensors", model, ["model.safetensors"], lambda path: weight_files.described(
            weight_files.located(path)[0], [])),
        Kind("pth", made / "model.pth", [""], lambda path: [array.sum() for array in pth.read(path).values()]),
    ]  # fmt: skip
    run = made / "run"
    files = [path.relative_to(run).as_posix() for path in sorted(run.rglob("*")) if path.is_file()]
    held = [name for name in files if name.startswith("checkpoints/")]
    found.append(Kind("checkpoint", run, held, weights, equal=True))
    return {kind.name: kind for kind in found}


def read_adapter(path: Path) -> object:
    from vlm_jax.checkpoint import peft_folder

    return peft_folder.read(path, description.read_config(path.parent / "model"))


def make(folder: Path) -> None:
    from safetensors.numpy import save_file

    (folder / "data").mkdir(parents=True)
    for name, form in (("a.jsonl", "openai"), ("a.parquet", "parquet"), ("a.array_record", "arrayrecord")):
        writing.write(folder / "data" / name, records(), format=form, embed=True)
    rows = [{"id": str(n), "conversations": [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}],
             "image": f"{n}.png"} for n in range(3)]  # fmt: skip
    (folder / "data" / "llava.json").write_text(json.dumps(rows))
    (folder / "data" / "table.csv").write_text('id,image,question,answer\n1,a.png,What?,That\n2,,Who?,"I, or you"\n')
    (folder / "pictures").mkdir()
    for kind in FORMATS:
        (folder / "pictures" / kind.lower()).write_bytes(picture(kind))
    shutil.copytree(BASE, folder / "model")
    (folder / "adapter").mkdir()
    width = json.loads((BASE / "config.json").read_text())["hidden_size"]
    name = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
    parts = {"lora_A": np.ones((2, width), np.float32), "lora_B": np.ones((width, 2), np.float32)}
    tensors = {f"{name}.{part}.weight": array for part, array in parts.items()}
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": [name.removeprefix("base_model.model.")],
    }
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    export.export(BASE, folder / "model.pth", format="pth")
    export.export(BASE, folder / "run", format="orbax")


def mutated(whole: bytes, drawn: random.Random) -> bytes:
    held = bytearray(whole)
    for _ in range(drawn.choice((1, 1, 1, 2, 4, 16))):
        at = drawn.randrange(len(held) + 1)
        end = min(len(held), at + drawn.choice((1, 2, 4, 16, 256)))
        how = drawn.randrange(7)
        if how == 0 and at < len(held):
            held[at] ^= 1 << drawn.randrange(8)
        elif how == 1:
            del held[at:end]
        elif how == 2:
            held[at:at] = held[at:end]
        elif how == 3:
            held[at:at] = drawn.choice(_TOKENS)
        elif how == 4:
            held[at:end] = drawn.randbytes(end - at)
        elif how == 5:
            held[at:end] = drawn.choice(_TOKENS)
        elif how == 6 and drawn.random() < 0.2:
            del held[at:]
    return bytes(held)


def _too_long(number, frame) -> None:
    raise TimeoutError


def outcome(kind: Kind, path: Path, expected: object, seconds: float) -> str:
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        found = kind.read(path)
    except InputError as error:
        wrong = [fault for fault in error.faults if "\n" in fault or "unexpected" in fault]
        return f"a fault of several lines: {wrong[0][:200]!r}" if wrong else "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read" if not kind.equal or found == expected else "other weights, without a word"


def some(folder: str, name: str, seeds: range, seconds: float, told: str) -> None:
    """Writes what the mutations of some seeds come to, a line each, before the next is tried."""
    warnings.filterwarnings("ignore")  # of broken pictures and numbers, of which there are thousands
    absl.logging.set_verbosity(absl.logging.FATAL)
    kind = kinds(Path(folder))[name]
    place = Path(tempfile.mkdtemp(dir=folder))
    copy = place / kind.made.name
    if kind.made.is_dir():
        shutil.copytree(kind.made, copy)
        (place / "model").exists() or (place / "model").symlink_to(kind.made.parent / "model")
    expected = kind.read(kind.made) if kind.equal else None
    with open(told, "w") as file:
        for seed in seeds:
            drawn = random.Random(f"{name} {seed}")
            part = drawn.choice(kind.files)
            whole = (kind.made / part if part else kind.made).read_bytes()
            target = copy / part if part else copy
            target.write_bytes(mutated(whole, drawn))
            print(terminal.line(outcome(kind, copy, expected, seconds)), file=file, flush=True)
            target.write_bytes(whole)
    shutil.rmtree(place)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="mutations, of all kinds together (%(default)s)")
    parser.add_argument("--kinds", default="", help="names of kinds, commas between; all where none is given")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=20, help="the longest that a reading may take (%(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vlm-jax-fuzz-") as folder:
        known = list(kinds(Path(folder)))
        wanted = given.kinds.split(",") if given.kinds else known
        if wrong := [name for name in wanted if name not in known]:
            sys.exit(f"error: --kinds={','.join(wrong)}: known are {', '.join(known)}")
        counts = run(folder, wanted, given)
    seconds = time.monotonic() - begun
    total = collections.Counter()
    print(f"{'kind':28}{'read':>8}{'refused':>9}{'else':>6}")
    for name, count in counts.items():
        total += count
        print(f"{name:28}{count['read']:8}{count['refused']:9}{count['else']:6}")
    print(f"{'all':28}{total['read']:8}{total['refused']:9}{total['else']:6}   in {seconds:.0f} s")
    sys.exit(int(total["else"] > 0))


def run(folder: str, names: list[str], given: argparse.Namespace) -> dict[str, collections.Counter]:
    """Counts by kind. Each task is a process of its own: the one that dies is known by the line it did not write."""
    shares = {name: SLOW.get(name, 1.0) for name in names}
    each = {name: max(1, round(given.count * share / sum(shares.values()))) for name, share in shares.items()}
    tasks = [
        (name, range(given.start + at, given.start + min(at + GROUP, count)))
        for name, count in each.items()
        for at in range(0, count, GROUP)
    ]
    random.Random(0).shuffle(tasks)
    counts = {name: collections.Counter() for name in names}
    at_work: list[tuple[multiprocessing.Process, str, range, Path]] = []
    numbers = iter(range(10**9))
    while tasks or at_work:
        while tasks and len(at_work) < given.processes:
            name, seeds = tasks.pop()
            told = Path(folder) / f"told-{next(numbers)}"
            process = FORK.Process(target=some, args=(folder, name, seeds, given.seconds, str(told)))
            process.start()
            at_work.append((process, name, seeds, told))
        multiprocessing.connection.wait([process.sentinel for process, *_ in at_work])
        for entry in [entry for entry in at_work if not entry[0].is_alive()]:
            at_work.remove(entry)
            process, name, seeds, told = entry
            lines = told.read_text().splitlines() if told.is_file() else []
            if len(lines) < len(seeds):
                tasks.append((name, seeds[len(lines) + 1 :]))
                lines.append(f"the process ended with status {process.exitcode}")
            for seed, line in zip(seeds, lines, strict=False):
                known = line if line in ("read", "refused") else "else"
                counts[name][known] += 1
                if known == "else":
                    print(f"{name}, seed {seed}: {line}", flush=True)
            tasks = [task for task in tasks if len(task[1])]
    return counts


if __name__ == "__main__":
    main()

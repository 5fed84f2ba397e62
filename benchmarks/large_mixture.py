"""How soon a mixture of many records from several sources delivers, and what memory it takes.

    .venv/bin/python benchmarks/large_mixture.py

Writes the records (JSON lines, ArrayRecord, a CSV table) into a folder that is kept, then opens them in a fresh process
with worker processes, as training does where faulty records are left out. Prints the seconds until the first batch and
the resident memory of the process and of each worker after --batches batches.
"""

import argparse
import csv
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "vlm_jax" / "assets" / "tiny_base"
IMAGES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000, help="records in all (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=50, help="batches to take (default: %(default)s)")
    parser.add_argument("--folder", default="runs/large_mixture", help="where the records lie (default: %(default)s)")
    parser.add_argument("--open", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = Path(options.folder) / str(options.records)
    if options.open:
        deliver(folder, options.workers, options.batches)
        return
    if not (folder / "done").exists():
        print(f"writing {options.records:,} records to {folder} …", file=sys.stderr)
        write(folder, options.records)
        (folder / "done").touch()
    subprocess.run([sys.executable, __file__, *sys.argv[1:], "--open"], check=True)


def write(folder: Path, count: int) -> None:
    """Half of the records as JSON lines, 3 in 10 as ArrayRecord with the images in it, 2 in 10 as a table."""
    from data_pipeline import sources
    from data_pipeline.records import Record

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        side = rng.integers(80, 400, 2)
        small = PIL.Image.fromarray(rng.integers(0, 256, (5, 5, 3)).astype(np.uint8))
        small.resize((int(side[0]), int(side[1]))).save(folder / "images" / f"{number}.jpg")

    def record(number: int) -> Record:
        image = str((folder / "images" / f"{number % IMAGES}.jpg").absolute())
        parts = [{"type": "image", "image": image}, {"type": "text", "text": f"What is number {number}?"}]
        answer = " ".join(["It", "is", "a", "thing"] * (1 + number % 9))
        return Record(str(number), [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}])

    lines, arrays = count // 2, count * 3 // 10
    sources.write(folder / "a.jsonl", (record(n) for n in range(lines)), format="records")
    sources.write(folder / "b.array_record", (record(n) for n in range(arrays)), format="arrayrecord")
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("image", "question", "answer"))
    for number in range(count - lines - arrays):
        table.writerow((f"images/{number % IMAGES}.jpg", f"What is it, {number}?", "A thing."))
    (folder / "c.csv").write_text(text.getvalue(), encoding="utf-8")


def deliver(folder: Path, workers: int, count: int) -> None:
    begun = time.perf_counter()
    from data_pipeline.dataset import open_dataset
    from vlm_jax.checkpoint import description
    from vlm_jax.training.config import default_config

    model = description.read_config(BASE)
    processor = description.read_processor(BASE, model, (4, 64))
    data = default_config().data.to_dict()
    data |= {"workers": workers, "on_error": "drop", "decode_check_up_to": 0, "cache_mb": 64, "too_large": "drop"}
    data["mixture"] = {
        "lines": {"path": str(folder / "a.jsonl"), "weight": 5.0},
        "arrays": {"path": str(folder / "b.array_record"), "weight": 3.0},
        "table": {"path": str(folder / "c.csv"), "weight": 2.0},
    }
    dataset = open_dataset(data, processor, complete=False, seed=0)
    assert not dataset.errors, dataset.errors
    batch = {"rows": 8, "sequence_length": 1024, "max_sequence_length": 0, "buckets": 1, "patches": 0, "supervised": 0}
    dataset.choose_buckets(batch, model, rows_multiple=1)
    batches = dataset.batches(dataset.plan(steps=count, epochs=0), threads=2)
    next(batches)
    first = time.perf_counter() - begun
    for _ in batches:
        pass
    seconds = time.perf_counter() - begun - first
    print(f"{len(dataset.examples):,} records of {len(data['mixture'])} sources: first batch after {first:.1f} s")
    print(f"{count - 1} more batches in {seconds:.1f} s")
    print(f"memory: main process {resident('self') / 2**20:,.0f} MB")
    for process in dataset.images.processes():
        print(f"        worker {resident(process) / 2**20:,.0f} MB")
    dataset.close()


def resident(process: int | str) -> int:
    """Bytes of memory a process holds now."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


if __name__ == "__main__":
    main()

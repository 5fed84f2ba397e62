"""From JPEGs on disk to batches: this package's pipeline against transformers' processor in a PyTorch DataLoader.

    .venv/bin/python benchmarks/input_pipeline.py

Both decode the same images to the same pixels (checked bit by bit) with as many worker processes, in turns. Wants
PyTorch, which `make test` installs. Prints images a second of each turn, medians, and their ratio; the time until
the first batch, which starts the workers, is shown apart.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_pipeline.dataset import open_dataset
from vlm_jax.checkpoint import description
from vlm_jax.training.config import default_config

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"
SIDES = ((640, 480), (480, 640), (800, 600), (1024, 683), (500, 375), (512, 512))
BATCH = 8


def draw(folder: Path, count: int) -> Path:
    """Images of photographs' sizes with detail at every scale, and a table that asks about them."""
    rng = np.random.default_rng(0)
    lines = []
    for number in range(count):
        width, height = SIDES[number % len(SIDES)]
        layers = [
            PIL.Image.fromarray(rng.integers(0, 256, (cells, cells, 3)).astype(np.uint8)).resize((width, height))
            for cells in (4, 24, 160)
        ]
        image = PIL.Image.blend(PIL.Image.blend(layers[0], layers[1], 0.4), layers[2], 0.15)
        image.save(folder / f"{number}.jpg", quality=88)
        lines.append(json.dumps({"image": f"{number}.jpg", "question": "What is it?", "answer": f"Image {number}."}))
    (folder / "table.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "table.jsonl"


class Reference(torch.utils.data.Dataset):
    """What a fine-tuning script on transformers does for each example."""

    def __init__(self, folder: Path, count: int, most: int):
        self.folder, self.count = folder, count
        self.processor = Qwen2VLImageProcessorPil(min_pixels=4 * 28 * 28, max_pixels=most * 28 * 28)
        self.tokenizer = AutoTokenizer.from_pretrained(BASE)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int):
        with PIL.Image.open(self.folder / f"{number}.jpg") as opened:
            seen = self.processor(images=opened.convert("RGB"), return_tensors="np")
        grid = seen["image_grid_thw"][0]
        messages = [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
            {"role": "assistant", "content": f"Image {number}."},
        ]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        text = text.replace("<|image_pad|>", "<|image_pad|>" * int(grid.prod() // 4))
        ids = self.tokenizer(text)["input_ids"]
        return torch.tensor(ids), torch.from_numpy(seen["pixel_values"]), torch.from_numpy(seen["image_grid_thw"])


def together(examples):
    ids = torch.nn.utils.rnn.pad_sequence([one[0] for one in examples], batch_first=True)
    return ids, torch.cat([one[1] for one in examples]), torch.cat([one[2] for one in examples])


def reference(folder: Path, count: int, workers: int, most: int) -> tuple[float, float]:
    """(seconds to the first batch, images a second after it)."""
    begun = time.perf_counter()
    data = torch.utils.data.DataLoader(
        Reference(folder, count, most),
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=together,
        multiprocessing_context="spawn" if workers else None,
    )
    seen = 0
    for number, (_, _, grids) in enumerate(data):
        if number == 0:
            first = time.perf_counter()
        else:
            seen += len(grids)
    return first - begun, seen / (time.perf_counter() - first)


def ours(path: Path, count: int, workers: int, most: int, threads: int) -> tuple[float, float]:
    begun = time.perf_counter()
    model = description.read_config(BASE)
    processor = description.read_processor(BASE, model, (4, most))
    data = default_config().data.to_dict()
    data |= {"path": str(path), "workers": workers, "cache_mb": 0, "on_error": "drop", "shuffle": False}
    data["decode_check_up_to"] = 0
    dataset = open_dataset(data, processor, complete=False, seed=0)
    # A row for each example, as the reference has it, padded to the longest.
    batch = {
        "rows": BATCH,
        "sequence_length": most + 64,
        "max_sequence_length": 0,
        "buckets": 1,
        "patches": 4 * most,
        "supervised": 0,
    }
    dataset.choose_buckets(batch, model, rows_multiple=1)
    batches = dataset.batches(dataset.plan(steps=0, epochs=1), threads=threads)
    seen = 0
    for number, one in enumerate(batches):
        if number == 0:
            first = time.perf_counter()
        else:
            seen += int(one.segment_ids.max(axis=1).sum())
    rate = seen / (time.perf_counter() - first)
    dataset.close()
    return first - begun, rate


def same_pixels(folder: Path, count: int, most: int) -> int:
    """How many images were compared, value by value, with the reference's."""
    model = description.read_config(BASE)
    processor = description.read_processor(BASE, model, (4, most))
    loader = Reference(folder, count, most)
    mean, std = (np.array(values, np.float32) for values in (loader.processor.image_mean, loader.processor.image_std))
    for number in range(0, count, max(1, count // 12)):
        _, pixels, _ = loader[number]
        wanted = pixels.numpy().reshape(-1, 4, 3, 2, 14, 14)[:, :, :, 0]
        raw = np.rint((wanted * std[:, None, None] + mean[:, None, None]) * 255)
        mine = processor.prepare_image(str(folder / f"{number}.jpg")).patches.reshape(raw.shape)
        assert np.array_equal(raw.astype(np.uint8), mine), f"image {number} differs"
    return len(range(0, count, max(1, count // 12)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400, help="images (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes of both (default: %(default)s)")
    parser.add_argument("--visual_tokens", type=int, default=256, help="most an image takes (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="times each is measured (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = draw(folder, options.images)
        print(f"{same_pixels(folder, options.images, options.visual_tokens)} images compared: pixels are equal")
        rates: dict[str, list[float]] = {}
        for _ in range(options.turns):
            for who, (first, rate) in (
                ("transformers", reference(folder, options.images, options.workers, options.visual_tokens)),
                ("vlm_jax", ours(path, options.images, options.workers, options.visual_tokens, 2)),
            ):
                rates.setdefault(who, []).append(rate)
                print(f"{who:12} {rate:7.1f} images/s after the first batch, which took {first:.1f} s", flush=True)
    medians = {who: statistics.median(values) for who, values in rates.items()}
    print(
        f"medians: transformers {medians['transformers']:.1f}, vlm_jax {medians['vlm_jax']:.1f} images/s, "
        f"ratio {medians['vlm_jax'] / medians['transformers']:.2f} ({options.workers} workers each)"
    )


if __name__ == "__main__":
    main()

"""Answers beside transformers' `generate`: the same weights, the same conversations with images, greedy.

    .venv/bin/python benchmarks/generate.py                  # about 100 M parameters, float32, on this machine's CPU
    .venv/bin/python benchmarks/generate.py --device=gpu     # 3B shapes, bfloat16, on one NVIDIA GPU

Times run from messages to token ids, images and words processed on both sides, every answer to its full length. The
first token's time is that of answers of one token. Each side runs in a process of its own; they take turns. In float32
the answers must be the same, token for token, but for near ties of random weights: below nine tenths of equal tokens
the exit status is 1. In bfloat16 both sides round in ways of their own, so there the share is told and not judged.
Wants PyTorch and transformers, which `make test` installs.
"""

import argparse
import dataclasses
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from side_by_side import Worker
from train_step import write
from train_step_data import BASE, conversations
from train_step_data import Settings as Data

SIDES = {"transformers": "generate_theirs", "vlm_jax": "generate_ours"}


@dataclasses.dataclass(frozen=True)
class Settings:
    folder: str
    preset: str
    count: int
    visual_tokens: int
    threads: int
    device: str
    dtype: str


def prompts(settings: Settings) -> list[list[dict]]:
    """Conversations of unequal lengths: a question with no image, one or two, and as many words as an answer has in
    `train_step_data`, so that lengths are as ragged as those of training data."""
    data = Data(
        preset=settings.preset,
        folder="",
        lengths="ragged",
        mode="full",
        samples=settings.count,
        steps=1,
        visual_tokens=settings.visual_tokens,
        remat=False,
        device="cpu",
        threads=settings.threads,
        layouts=(),
    )
    found = []
    for question, answer in conversations(data):
        *images, text = question["content"]
        words = {"type": "text", "text": f"{text['text']}: {answer['content']}"}
        found.append([{"role": "user", "content": [*images, words]}])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="(default: float32; on a GPU bfloat16)")
    parser.add_argument("--preset", help="of train_step's sizes (default: 100m; on a GPU 3b)")
    parser.add_argument("--batches", default="16,1", help="conversations at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="of each answer (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="each side is measured (default: %(default)s)")
    parser.add_argument("--visual_tokens", type=int, default=256, help="of an image at most (default: %(default)s)")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = options.device == "gpu"
    preset, dtype = options.preset or ("3b" if gpu else "100m"), options.dtype or ("bfloat16" if gpu else "float32")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"JAX_PLATFORMS": "cuda" if gpu else "cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    counts = [int(one) for one in options.batches.split(",")]
    sound = True
    with tempfile.TemporaryDirectory() as folder:
        write(folder, preset, dtype)
        for path in BASE.iterdir():  # its tokenizer and the rules for images
            if path.suffix in (".json", ".jinja", ".txt") and not (Path(folder) / path.name).exists():
                shutil.copy(path, folder)
        settings = Settings(folder, preset, max(counts), options.visual_tokens, threads, options.device, dtype)
        workers = {side: Worker(module, settings) for side, module in SIDES.items()}
        print(f"{preset}, {options.device}, {threads} cores, {options.tokens} tokens an answer, {options.turns} turns")
        for side, worker in workers.items():
            print(f"  {side}: {worker('library')}")
        for count in counts:
            answers = {side: worker("answers", count, options.tokens) for side, worker in workers.items()}
            for worker in workers.values():
                worker("seconds", count, 1)  # compiled, or its memory taken
            taken: dict[tuple[str, int], list[float]] = {}
            for _ in range(options.turns):
                for length in (options.tokens, 1):
                    for side, worker in workers.items():
                        taken.setdefault((side, length), []).append(worker("seconds", count, length))
            print(f"\n{count} conversation{'s' if count > 1 else ''} at a time")
            for side in workers:
                whole, first = taken[side, options.tokens], taken[side, 1]
                middle = statistics.median(whole)
                print(
                    f"  {side:12} {count * options.tokens / middle:8.1f} tokens/s (turns {min(whole):.2f} … "
                    f"{max(whole):.2f} s), first token after {statistics.median(first):.2f} s"
                )
            theirs, ours = (taken[side, options.tokens] for side in SIDES)
            each = [one / other for one, other in zip(theirs, ours, strict=True)]
            ratio = statistics.median(theirs) / statistics.median(ours)
            print(f"  ratio of medians {ratio:.2f} (turn by turn {min(each):.2f} … {max(each):.2f})")
            pairs = [
                pair for one, other in zip(*answers.values(), strict=True) for pair in zip(one, other, strict=True)
            ]
            equal = sum(one == other for one, other in pairs)
            print(f"  {equal} of {len(pairs)} tokens equal", flush=True)
            sound &= dtype != "float32" or equal >= 0.9 * len(pairs)
        for worker in workers.values():
            worker.close()
    if not sound:
        sys.exit("the two sides do not say the same")


if __name__ == "__main__":
    main()

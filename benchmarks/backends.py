"""The quickstart's benchmark by vlm_jax and by transformers: the same answers, and how long each takes.

    .venv/bin/python benchmarks/backends.py                   # 200 questions of the built-in corpus, the shipped base
    .venv/bin/python benchmarks/backends.py --model=runs/quickstart/hf --questions=960

Questions about drawn objects and photographs, in English and Thai, greedy, float32, as many at a time on both sides.
Each side runs in a process of its own; they take turns. Times run from conversations to texts, images and words
processed on both sides; the first turn, in which programs are compiled and memory is taken, does not count. Exits with
1 where an answer differs. Wants PyTorch, which `make test` installs.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from side_by_side import Worker

ROOT = Path(__file__).resolve().parents[1]
SIDES = {"transformers": "backends_theirs", "vlm_jax": "backends_ours"}


@dataclasses.dataclass(frozen=True)
class Settings:
    model: str
    conversations: list[list[dict]]
    batch: int
    tokens: int
    threads: int


def conversations(folder: Path, count: int, *, text_only: bool = True) -> list[list[dict]]:
    """The held-out questions of the built-in objects, evenly from both splits; each turn has its `answer`.

    Args:
      text_only: one in ten is asked without its image.
    """
    command = [sys.executable, str(ROOT / "scripts" / "generate_corpus.py"), f"--output={folder}"]
    command += [f"--config={ROOT / 'configs' / 'corpus' / 'objects.py'}", "--config.factor=1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = []
    for split in ("synthetic", "photo"):
        for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            (turn, *_) = record["messages"]
            turn["answer"] = record["answers"][0]
            for part in turn["content"]:
                if part["type"] == "image":
                    part["image"] = str(folder / part["image"])
            found.append([turn])
    found = found[:: max(1, len(found) // count)][:count]
    for number in range(9, len(found), 10) if text_only else ():
        (turn,) = found[number]
        words = [part for part in turn["content"] if part["type"] == "text"]
        found[number] = [{**turn, "content": words}]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", default=str(ROOT / "vlm_jax" / "assets" / "tiny_base"), help="(default: %(default)s)"
    )
    parser.add_argument("--questions", type=int, default=200, help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="conversations at a time (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer at most (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="each side is measured (default: %(default)s)")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "JAX_PLATFORMS": "cpu"}
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    with tempfile.TemporaryDirectory() as folder:
        asked = conversations(Path(folder) / "objects", options.questions)
        for (turn,) in asked:
            turn.pop("answer")
        settings = Settings(options.model, asked, options.batch, options.tokens, threads)
        workers = {side: Worker(module, settings) for side, module in SIDES.items()}
        said = {side: worker("answers") for side, worker in workers.items()}
        taken: dict[str, list[float]] = {}
        for _ in range(options.turns):
            for side, worker in workers.items():
                taken.setdefault(side, []).append(worker("seconds"))
        for worker in workers.values():
            worker.close()
    print(f"{len(asked)} questions, {options.batch} at a time, at most {options.tokens} tokens, {threads} cores")
    for side, seconds in taken.items():
        middle = statistics.median(seconds)
        print(f"  {side:12} {len(asked) / middle:6.1f} questions/s (turns {min(seconds):.2f} … {max(seconds):.2f} s)")
    theirs, ours = (taken[side] for side in SIDES)
    each = [one / other for one, other in zip(theirs, ours, strict=True)]
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"  ratio of medians {ratio:.2f} (turn by turn {min(each):.2f} … {max(each):.2f})")
    equal = sum(one == other for one, other in zip(*said.values(), strict=True))
    print(f"  {equal} of {len(asked)} answers equal, token for token")
    if equal < len(asked):
        sys.exit(1)


if __name__ == "__main__":
    main()

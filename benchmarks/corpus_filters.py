"""100,000 question–answer pairs through all text filters and deduplication: time, memory, what was found, equal bytes.

    .venv/bin/python benchmarks/corpus_filters.py
    .venv/bin/python benchmarks/corpus_filters.py --runners=one,processes,ray --pairs=100000

The pairs are made from templates (tests/data_pipeline/corpus/planted.py), half of them Thai, three in ten with an
article: of 100, 5 are another one with one edit, 3 another one with its year or name changed, 2 have a fault that one
filter is for. Every runner works in processes of its own. Printed are its seconds, the processor seconds of it and its
processes, the most memory they had together (resident, shared pages counted in each), the share of planted duplicates
of which one of the two gave way, how many of the changed were taken for duplicates, the share of faults that the right
filter found, and a digest of the files. Needs the test extra, and for --runners=ray the ray extra.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil

from data_pipeline.corpus.filters.pair import to_json
from data_pipeline.corpus.shards import plan, runners
from data_pipeline.corpus.shards.files import read_lines, write_lines
from tests.data_pipeline.corpus import planted

FILTERS = ("schema", "chain_of_thought", "language", "image_mention", "answer_in_article", "near_duplicate")
RUNNERS = ("one", "processes", "ray")
FILES = ("kept.jsonl", "dropped.jsonl", "contradictions.jsonl")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=100_000, help="(default: %(default)s)")
    parser.add_argument("--shards", type=int, default=4, help="of every stage (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes, or cores of Ray (default: %(default)s)")
    parser.add_argument("--runners", default="one,processes", help=f"of {', '.join(RUNNERS)} (default: %(default)s)")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        run(Path(options.folder), options.runners, options.workers)
        return
    if unknown := set(options.runners.split(",")) - set(RUNNERS):
        parser.error(f"no runners {', '.join(unknown)}; there are {', '.join(RUNNERS)}")
    count = options.pairs
    pairs, expected = planted.corpus(count, count * 5 // 100, count * 3 // 100, count * 2 // 100)
    with tempfile.TemporaryDirectory(prefix="corpus_filters-") as folder:
        write_lines(Path(folder) / "pairs.jsonl", map(to_json, pairs))
        print(f"{count:,} pairs, {options.shards} shards, {options.workers} workers, {os.cpu_count()} cores")
        print(f"{'runner':<11}{'s':>7}{'CPU s':>8}{'GB':>7}{'recall':>9}{'changed':>9}{'faults':>8}  digest")
        for runner in options.runners.split(","):
            target = Path(folder) / runner
            # One shard in one process: what is compared with is the plainest.
            shards = 1 if runner == "one" else options.shards
            plan.prepare(target, [Path(folder) / "pairs.jsonl"], shards, dict.fromkeys(FILTERS, True))
            seconds, processor, most = measured(target, runner, options.workers)
            recall, changed, faults = found(target, expected)
            print(
                f"{runner:<11}{seconds:>7.1f}{processor:>8.1f}{most / 1e9:>7.2f}{recall:>9.4f}{changed:>9}"
                f"{faults:>8.3f}  {digest(target)}"
            )


def run(folder: Path, runner: str, workers: int) -> None:
    match runner:
        case "one":
            runners.in_one_process(folder)
        case "processes":
            runners.in_processes(folder, workers)
        case "ray":
            runners.on_ray(folder, cpus=workers)


def measured(folder: Path, runner: str, workers: int) -> tuple[float, float, float]:
    """(seconds, processor seconds, most bytes) of a runner in a process of its own, with all that it starts."""
    begun = time.perf_counter()
    command = [sys.executable, __file__, f"--folder={folder}", f"--runners={runner}", f"--workers={workers}"]
    process = subprocess.Popen(command)
    most, processor, over = 0.0, {}, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.1):
            total = 0
            try:
                every = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for one in every:
                try:
                    total += one.memory_info().rss
                    times = one.cpu_times()
                    processor[one.pid] = times.user + times.system
                except psutil.NoSuchProcess:
                    continue
            most = max(most, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    status = process.wait()
    seconds = time.perf_counter() - begun
    over.set()
    watcher.join()
    if status:
        sys.exit(f"{runner} ended with status {status}")
    return seconds, sum(processor.values()), most


def found(folder: Path, expected: dict) -> tuple[float, int, float]:
    """(recall of planted duplicates, changed pairs taken for what they were made of, share of faults found)."""
    dropped = {entry["pair"]["id"]: entry for entry in read_lines(folder / "dropped.jsonl")}
    duplicates = [(one in dropped) != (other in dropped) for one, other in expected["duplicates"].items()]
    survivors = {
        id: entry["reason"].split()[-1] for id, entry in dropped.items() if entry["filter"] == "near_duplicate"
    }
    joined = [a for a, b in expected["changed"].items() if survivors.get(a) == b or survivors.get(b) == a]
    faults = [dropped.get(id, {}).get("filter") == name for id, name in expected["faulty"].items()]
    return sum(duplicates) / len(duplicates), len(joined), sum(faults) / len(faults)


def digest(folder: Path) -> str:
    content = json.dumps([hashlib.blake2b((folder / name).read_bytes()).hexdigest() for name in FILES])
    return hashlib.blake2b(content.encode(), digest_size=6).hexdigest()


if __name__ == "__main__":
    main()

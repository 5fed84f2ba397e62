"""Seeded mutations of every kind of file that is read: each is read, or refused in a line, and nothing else happens.

    .venv/bin/python benchmarks/fuzz.py --count=100000

A small sound file of each kind is made (`fuzz_kinds`); bits are flipped, pieces cut out, doubled and exchanged, numbers
and brackets put in. What a mutation comes to is "read" (of a checkpoint, whose files have digests: read with equal
weights), "refused" (InputError, each error one line of at most 2,000 letters), or anything else: another exception, a
crash, more than --seconds. The seed of each of those is printed, and the exit status is 1.
"""

import argparse
import collections
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
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

import logging

import absl.logging

from fuzz_kinds import Kind, kinds
from vlm_jax import terminal
from vlm_jax.errors import InputError

FORK = multiprocessing.get_context("fork")
SHARES = {"checkpoint": 0.02, "tokenizer.json": 0.1, "tokenizer_config.json": 0.1, "tfds": 0.1, "array_record": 0.3}
"""Of kinds of which a reading takes long, beside 1 for each other."""
GROUP = 250
"""Mutations a worker is given at once."""
HEAD = 2048
"""Bytes at a file's beginning in which half of the changes are: headers are there, and little else to break."""
_TOKENS = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"null", b"-1", b"1e999", b"NaN", b"99999999999999999999", b"\x00",
           b"\xff", b"\xed\xa0\x80", b"\r\n", b"<image>", b"[" * 3000)  # fmt: skip


def mutated(whole: bytes, drawn: random.Random) -> bytes:
    content = bytearray(whole)
    for _ in range(drawn.choice((1, 1, 1, 2, 4, 16))):
        at = drawn.randrange((min(len(content), HEAD) if drawn.random() < 0.5 else len(content)) + 1)
        end = min(len(content), at + drawn.choice((1, 2, 4, 16, 256)))
        change = drawn.randrange(7)
        if change == 0 and at < len(content):
            content[at] ^= 1 << drawn.randrange(8)
        elif change == 1:
            del content[at:end]
        elif change == 2:
            content[at:at] = content[at:end]
        elif change == 3:
            content[at:at] = drawn.choice(_TOKENS)
        elif change == 4:
            content[at:end] = drawn.randbytes(end - at)
        elif change == 5:
            content[at:end] = drawn.choice(_TOKENS)
        elif change == 6 and drawn.random() < 0.2:
            del content[at:]
    return bytes(content)


class _TooLong(BaseException):
    """Nothing that is read takes it for an error of the file."""


def _too_long(number, frame) -> None:
    raise _TooLong


def outcome(kind: Kind, path: Path, expected: object, seconds: float) -> str:
    signal.signal(signal.SIGALRM, _too_long)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        found = kind.read(path)
    except InputError as error:
        wrong = [line for line in error.lines if "\n" in line or not line]
        return f"an error that is no line: {wrong[0][:200]!r}" if wrong else "refused"
    except _TooLong:
        return f"took more than {seconds} s"
    except BaseException as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read" if not kind.equal or found == expected else "other weights, without a word"


def some(folder: str, name: str, seeds: range, seconds: float, report: str) -> None:
    """Writes what the mutations of some seeds come to, a line each, before the next is tried."""
    warnings.filterwarnings("ignore")  # of broken images and numbers, of which there are thousands
    absl.logging.set_verbosity(absl.logging.FATAL)
    logging.disable(logging.CRITICAL)
    kind = kinds(Path(folder))[name]
    place = Path(tempfile.mkdtemp(dir=folder))
    copy = place / kind.made.name
    if kind.made.is_dir():
        shutil.copytree(kind.made, copy)
    else:
        shutil.copy(kind.made, copy)
    if kind.name == "adapter_model.safetensors":
        (place / "model").symlink_to(kind.made.parent / "model")
    expected = kind.read(copy)  # what is not mutated is read
    with open(report, "w") as file:
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
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vlm-jax-fuzz-") as folder:
        known = list(kinds(Path(folder)))
        wanted = options.kinds.split(",") if options.kinds else known
        if wrong := [name for name in wanted if name not in known]:
            sys.exit(f"error: --kinds={','.join(wrong)}: known are {', '.join(known)}")
        counts = run(folder, wanted, options)
    seconds = time.monotonic() - begun
    total = collections.Counter()
    print(f"{'kind':28}{'read':>8}{'refused':>9}{'else':>6}")
    for name, count in counts.items():
        total += count
        print(f"{name:28}{count['read']:8}{count['refused']:9}{count['else']:6}")
    print(f"{'all':28}{total['read']:8}{total['refused']:9}{total['else']:6}   in {seconds:.0f} s")
    sys.exit(int(total["else"] > 0))


def run(folder: str, names: list[str], options: argparse.Namespace) -> dict[str, collections.Counter]:
    """Counts by kind. Each task is a process of its own: the one that dies is known by the line it did not write."""
    shares = {name: SHARES.get(name, 1.0) for name in names}
    each = {name: max(1, round(options.count * share / sum(shares.values()))) for name, share in shares.items()}
    tasks = [
        (name, range(options.start + at, options.start + min(at + GROUP, count)))
        for name, count in each.items()
        for at in range(0, count, GROUP)
    ]
    random.Random(0).shuffle(tasks)
    counts = {name: collections.Counter() for name in names}
    at_work: list[tuple[multiprocessing.Process, str, range, Path]] = []
    numbers = iter(range(10**9))
    while tasks or at_work:
        while tasks and len(at_work) < options.processes:
            name, seeds = tasks.pop()
            report = Path(folder) / f"told-{next(numbers)}"
            process = FORK.Process(target=some, args=(folder, name, seeds, options.seconds, str(report)))
            process.start()
            at_work.append((process, name, seeds, report))
        multiprocessing.connection.wait([process.sentinel for process, *_ in at_work], timeout=options.seconds)
        for process, _, _, report in at_work:
            if report.is_file() and time.time() - report.stat().st_mtime > 60 + 3 * options.seconds:
                process.kill()  # where Python is never come back to, no signal is heard
        for entry in [entry for entry in at_work if not entry[0].is_alive()]:
            at_work.remove(entry)
            process, name, seeds, report = entry
            lines = report.read_text().splitlines() if report.is_file() else []
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

"""Requests at once to `scripts/serve.py`: answers a second, how long each waits, and the server's memory, by --batch.

    .venv/bin/python benchmarks/serving.py                       # about 100 M random parameters, on this machine
    .venv/bin/python benchmarks/serving.py --model=FOLDER

Each request shows a photograph and asks for a short answer, streamed. Every server is asked twice, and the second time
counts: the first compiles. Memory is the most that the server's process had resident, before the first request and
after the last.
"""

import argparse
import base64
import itertools
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

from train_step import write
from train_step_data import BASE

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = sorted((ROOT / "data_pipeline" / "corpus" / "drawn" / "photographs").glob("*.jpg"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder (default: random weights of --preset)")
    parser.add_argument("--preset", default="100m", help="of train_step's sizes (default: %(default)s)")
    parser.add_argument("--batches", default="1,4,8,16,32", help="(default: %(default)s)")
    parser.add_argument("--requests", type=int, default=50, help="at once (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer at most (default: %(default)s)")
    parser.add_argument("--visual_tokens", default="64", help="of an image at most (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model is None:
            write(folder, options.preset)
            for path in BASE.iterdir():  # its tokenizer and the rules for images
                if path.suffix in (".json", ".jinja", ".txt") and not (Path(folder) / path.name).exists():
                    shutil.copy(path, folder)
        for batch in options.batches.split(","):
            print(measured(options.model or folder, batch, options), flush=True)


def measured(model: str, batch: str, options: argparse.Namespace) -> str:
    flags = [f"--model={model}", "--name=model", "--port=0", f"--batch={batch}", f"--queue={options.requests}"]
    flags.append(f"--visual_tokens={options.visual_tokens}")
    command = [sys.executable, ROOT / "scripts" / "serve.py", *flags]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        line = server.stderr.readline()
        address = re.search(r"http://\S+", line)
        if address is None:
            sys.exit(line + server.stderr.read())
        client = openai.OpenAI(base_url=address[0], api_key="none", max_retries=0, timeout=3600)
        loaded = peak_memory(server.pid)
        together(client, options)
        user = user_seconds(server.pid)
        seconds, firsts, tokens = together(client, options)
        user = user_seconds(server.pid) - user
        return (
            f"batch {batch:>2}: {options.requests} answers in {seconds:.1f} s ({user:.1f} s of the cores), "
            f"{tokens} tokens, {tokens / seconds:.1f} a second; "
            f"first text after {statistics.median(firsts):.1f} s in the middle, {max(firsts):.1f} s at most; "
            f"memory {loaded:.2f} GB loaded, {peak_memory(server.pid):.2f} GB at most"
        )
    finally:
        server.terminate()
        server.wait()


def together(client: openai.OpenAI, options: argparse.Namespace) -> tuple[float, list[float], int]:
    begun = time.perf_counter()
    with ThreadPoolExecutor(options.requests) as pool:
        found = list(pool.map(lambda number: ask(client, number, options.tokens, begun), range(options.requests)))
    return time.perf_counter() - begun, [first for first, _ in found], sum(tokens for _, tokens in found)


def ask(client: openai.OpenAI, number: int, tokens: int, begun: float) -> tuple[float, int]:
    """Seconds until its first text, and tokens of its answer."""
    image = base64.b64encode(next(itertools.islice(itertools.cycle(PHOTOGRAPHS), number, None)).read_bytes()).decode()
    parts = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{image}"}},
        {"type": "text", "text": f"{number}: what is it?"},
    ]
    chunks = client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": parts}],
        max_tokens=tokens,
        stream=True,
        stream_options={"include_usage": True},
    )
    first, counted = None, 0
    for chunk in chunks:
        if first is None:
            first = time.perf_counter() - begun
        if chunk.usage is not None:
            counted = chunk.usage.completion_tokens
    return first, counted


def peak_memory(process: int) -> float:
    """In GB; Linux alone tells it."""
    text = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) / 1e6


def user_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()

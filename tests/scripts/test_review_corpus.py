"""scripts/review_corpus.py: a server from its first line to Ctrl-C, and what it refuses."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest

from data_pipeline.review.log import LOG
from tests.review_corpus import make_corpus
from tests.started import ROOT, environment, run


def command(corpus, *more):
    return [sys.executable, str(ROOT / "scripts" / "review_corpus.py"), f"--corpus={corpus}", *more]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("script") / "corpus")


def test_a_server_says_where_it_is_keeps_others_out_and_ends_with_what_was_reviewed(corpus):
    (corpus / LOG).write_bytes(b'{"time": "2026')  # a crash left it
    started = command(corpus, "--port=0", "--reviewer=Ann Lee", "--shared=1")
    process = subprocess.Popen(started, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stderr.readline() for _ in range(3)]
        assert "was cut off by a crash" in lines[0] and lines[1] == "reviewed 0 of 10 records\n"
        address = re.fullmatch(r"10 records to review at (http://127.0.0.1:\d+)/\?reviewer=Ann%20Lee .*\n", lines[2])[1]
        with urllib.request.urlopen(f"{address}/api/item?reviewer=Ann&step=next", timeout=20) as answer:
            item = json.load(answer)["item"]
        sent = {"reviewer": "Ann", "action": "accept", "token": "t", "key": item["key"], "content": item["content"]}
        headers = {"Origin": address, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{address}/api/action", json.dumps(sent).encode(), headers)
        urllib.request.urlopen(request, timeout=20).close()

        second = run(command(corpus, "--port=0"), env=environment())
        assert second.returncode == 1 and second.stderr.count("\n") == 1 and "another server" in second.stderr
        port = address.rpartition(":")[2]
        other = run(command(make_corpus(corpus.parent / "other"), f"--port={port}"), env=environment())
        assert other.returncode == 1 and f"error: --port={port}: cannot be listened on" in other.stderr
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0 and errors == ""
    assert output.startswith("reviewed 1 of 10 records: 1 accepted\n")
    found = run(command(corpus, "--summary"), env=environment())
    assert found.returncode == 0 and found.stdout == output


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--shared=1.5"], "--shared=1.5: wanted a share from 0 to 1"),
        (["--sample=-1"], "--sample=-1: wanted 0 or more"),
        (["--port=70000"], "--port=70000: wanted 0 to 65535"),
        ([f"--reviewer={'x' * 50}"], "a reviewer's name has 1 to 40 printable characters"),
        (["--corpus=nowhere"], "nowhere: is not a folder"),
    ],
)
def test_what_cannot_be_is_one_line(corpus, flags, reason):
    done = run(command(corpus, "--port=0", *flags), env=environment())
    assert done.returncode == 1 and done.stderr.startswith("error: ") and reason in done.stderr
    assert done.stderr.count("\n") == 1

"""`scripts/serve.py` as it is started: one line, answers, Ctrl-C; and what it refuses to start with."""

import base64
import contextlib
import functools
import io
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from PIL import Image

import vlm_jax
from tests.started import ROOT, environment, run

MODEL = Path(vlm_jax.__file__).parent / "assets" / "tiny_base"
SCRIPT = ROOT / "scripts" / "serve.py"


@contextlib.contextmanager
def started(*flags, **more):
    """A server's process, and the address that it prints."""
    command = [sys.executable, SCRIPT, f"--model={MODEL}", "--port=0", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    try:
        line = process.stderr.readline()
        address = re.fullmatch(r"serving tiny_base at (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends it\)\n", line)
        assert address, line
        yield process, address[1]
    finally:
        process.kill()


def ended(process):
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def large_image():
    """More pixels than Pillow takes without a warning."""
    file = io.BytesIO()
    Image.new("1", (11_000, 11_000)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_it_prints_one_line_answers_and_ends_by_ctrl_c():
    secret = "a-token-nobody-sees"
    with started("--token_env=TOKEN", env=environment(TOKEN=secret)) as (process, address):
        with openai.OpenAI(base_url=address, api_key=secret, max_retries=0) as client:
            ask = functools.partial(client.chat.completions.create, model="tiny_base")
            assert ask(messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="another").models.list()
            # What libraries say of a request is not for the console.
            image = [{"type": "image_url", "image_url": {"url": large_image()}}]
            for content in (image, "word " * 140_000):
                with pytest.raises(openai.BadRequestError):
                    ask(messages=[{"role": "user", "content": content}])
        assert ended(process) == (0, "", "")


def test_ctrl_c_while_it_reads_a_prompt_ends_the_process():
    def without_ctrl_c():  # as shells start what they put into the background: Python does not raise it
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    long = [{"role": "user", "content": "word " * 8_000}]  # of which the reading cannot be interrupted
    with started(env=environment(), preexec_fn=without_ctrl_c) as (process, address), ThreadPoolExecutor(1) as pool:
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0) as client:
            asked = pool.submit(client.chat.completions.create, model="tiny_base", messages=long)
            time.sleep(1.5)
            assert ended(process) == (0, "", "")
            with pytest.raises(openai.InternalServerError, match="the server is being stopped"):
                asked.result()


@pytest.mark.parametrize(
    ("flags", "token", "line"),
    [
        (["--host=0.0.0.0"], None, "--host=0.0.0.0 is reached from other machines: give --token_env=NAME"),
        (["--token_env=TOKEN"], None, "--token_env=TOKEN: the environment variable TOKEN is not set, or empty"),
        (["--token_env=TOKEN"], "two words", "--token_env=TOKEN: a token is of letters, digits and signs"),
        (["--host=203.0.113.1", "--token_env=TOKEN"], "token", "cannot listen at 203.0.113.1, port 8000: "),
    ],
)
def test_it_does_not_start_where_anybody_could_ask(flags, token, line):
    env = environment() if token is None else environment(TOKEN=token)
    done = run([sys.executable, SCRIPT, f"--model={MODEL}", *flags], env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    assert token is None or token not in done.stderr


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run([sys.executable, SCRIPT, f"--model={tmp_path}", f"--port={port}"], env=environment())
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in done.stderr

"""`scripts/serve.py` as it is started: one line, answers, Ctrl-C; and what it refuses to start with."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import openai
import pytest

import vlm_jax
from tests.started import ROOT, environment, run

MODEL = Path(vlm_jax.__file__).parent / "assets" / "tiny_base"
SCRIPT = ROOT / "scripts" / "serve.py"


def test_it_prints_one_line_answers_and_ends_by_ctrl_c():
    secret = "a-token-nobody-sees"
    command = [sys.executable, SCRIPT, f"--model={MODEL}", "--port=0", "--token_env=TOKEN"]
    process = subprocess.Popen(
        command, env=environment(TOKEN=secret), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stderr.readline()
        address = re.fullmatch(r"serving tiny_base at (http://127\.0\.0\.1:\d+/v1) \(Ctrl-C ends it\)\n", line)
        assert address, line
        with openai.OpenAI(base_url=address[1], api_key=secret, max_retries=0) as client:
            found = client.chat.completions.create(model="tiny_base", messages=[{"role": "user", "content": "Hello"}])
            assert found.choices[0].message.content
            with pytest.raises(openai.AuthenticationError):
                client.with_options(api_key="another").models.list()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, output, errors) == (130, "", "error: interrupted\n")


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

"""Serves a model to OpenAI's clients: chat completions with images, streamed or not, batched; embeddings.

    .venv/bin/python scripts/serve.py --model=runs/photos
    .venv/bin/python scripts/serve.py --model=runs/photos --host=0.0.0.0 --token_env=SERVE_TOKEN

Clients are given http://127.0.0.1:8000/v1 as their base address, and the model's name, which is printed. Images are
data URIs. Other machines are answered with a token alone. Ctrl-C ends it. docs/serving.md says what is honoured.
"""

import interrupts  # first of all

import os
from pathlib import Path

from absl import flags

import command_line
import model_flags
from vlm_jax import terminal

flags.DEFINE_string("name", None, "of the model, in requests; else the name of its folder, or its hub id")
flags.DEFINE_string("encoder", None, "CLIP or SigLIP of /v1/embeddings, under its folder's name; else the model")
flags.DEFINE_integer("port", 8000, "0: a free one, which is printed", lower_bound=0, upper_bound=65535)
flags.DEFINE_string("host", "127.0.0.1", "the address to listen at; one that others reach needs --token_env")
flags.DEFINE_string("token_env", None, "the environment variable that holds the token which requests must bear")
flags.DEFINE_integer("batch", 16, "answers at one time", lower_bound=1, upper_bound=256)
flags.DEFINE_integer(
    "queue", 64, "requests that may wait beside those that are answered; more are told to come again", lower_bound=0
)
flags.DEFINE_integer(
    "cache_tokens", 65536, "tokens, prompts and answers together, that are held at one time", lower_bound=64
)
flags.DEFINE_integer(
    "patches", 131072, "patches of images, with the padding of windows, that are seen at one time", lower_bound=64
)
flags.DEFINE_integer("max_new_tokens", 256, "tokens of an answer where a request does not say", lower_bound=1)


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = flags.FLAGS
    from vlm_jax import serving
    from vlm_jax.errors import InputError
    from vlm_jax.serving.access import is_loopback, read_token

    serving.check_installed()
    token = read_token(options.token_env)
    if token is None and not is_loopback(options.host):
        raise InputError(
            f"--host={options.host} is reached from other machines: give --token_env=NAME, an environment variable "
            "with a token that requests must bear"
        )
    from vlm_jax.serving.server import address_of, listening, serve

    listener = listening(options.host, options.port)

    import vlm_jax
    from vlm_jax.serving.app import Application

    model = model_flags.load()
    folder = Path(options.model)
    name = options.name or (folder.resolve().name if folder.exists() else options.model)
    application = Application(
        model,
        name,
        host=options.host,
        token=token,
        batch=options.batch,
        queue=options.queue,
        cache_tokens=options.cache_tokens,
        patches=options.patches,
        default_tokens=options.max_new_tokens,
        encoder=vlm_jax.load_encoder(options.encoder) if options.encoder else None,
        encoder_name=Path(options.encoder).name if options.encoder else "",
        report=lambda line: terminal.say(terminal.line(line)),
    )
    terminal.say(f"serving {name} at {address_of(listener)}/v1 (Ctrl-C ends it)")
    serve(application, listener)
    interrupts.end(0)  # a thread of the model that still computes does not outlive the interpreter's tidying


if __name__ == "__main__":
    command_line.run(main)

"""Asks a model about images: one question, or a conversation in the terminal.

    .venv/bin/python scripts/chat.py --model=runs/photos --image=cat.jpg --question="What is it called?"
    .venv/bin/python scripts/chat.py --model=runs/photos --image=cat.jpg

Without --question it reads questions line by line; the conversation and its images stay. /image PATH shows another
image, /clear begins anew, /help lists the commands; /exit, an empty line or Ctrl-D ends it, Ctrl-C an answer.
"""

import interrupts  # noqa: F401 - first of all

import os
import sys
from collections.abc import Iterator

from absl import flags

import command_line
import model_flags
from vlm_jax import terminal

flags.DEFINE_multi_string("image", [], "an image to talk about; may be given several times")
flags.DEFINE_string("question", None, "one question; without it, a conversation")
flags.DEFINE_integer("max_new_tokens", 256, "tokens an answer may have", lower_bound=1)
flags.DEFINE_float("temperature", 0.0, "0: the likeliest answer; higher: more varied", lower_bound=0.0)
flags.DEFINE_integer("top_k", 0, "draw from so many of the likeliest tokens; 0: from all", lower_bound=0)
flags.DEFINE_float("top_p", 1.0, "draw from the likeliest tokens that together have this probability")
flags.DEFINE_float(
    "repetition_penalty",
    None,
    "above 1: tokens that were said already become less likely; else what the model's generation_config.json says",
)
flags.DEFINE_integer("seed", 0, "seed of a varied answer")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    options = flags.FLAGS
    from conversation import Conversation, talk
    from vlm_jax.errors import InputError, gathered
    from vlm_jax.processing.images import open_image

    images, errors = [], []
    for path in options.image:
        with gathered(errors):
            images.append({"type": "image", "image": open_image(path)})
    if errors:
        raise InputError(errors)

    model = model_flags.load()
    sampling = {name: options[name].value for name in ("temperature", "top_k", "top_p", "repetition_penalty", "seed")}
    conversation = Conversation(lambda messages: model.stream(messages, options.max_new_tokens, **sampling), images)
    if options.question is not None:
        for piece in conversation.ask(options.question):
            write(piece)
        write("\n")
        return
    talk(conversation, lines(), write=write, say=terminal.say, interactive=sys.stdin.isatty())


def lines() -> Iterator[str]:
    """What is typed, or comes through a pipe."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            if sys.stdin.isatty():
                print(file=sys.stderr)  # Ctrl-D leaves the cursor behind the prompt
            return
        yield line


def write(piece: str) -> None:
    # What goes to another program or a file is the answer as it is.
    print(terminal.safe(piece) if sys.stdout.isatty() else piece, end="", flush=True)


if __name__ == "__main__":
    command_line.run(main)

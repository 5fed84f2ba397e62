"""A conversation in the terminal: questions line by line, and what a line that begins with a slash does.

Where answers come from is the caller's (`scripts/chat.py`): nothing here loads JAX.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.processing.images import open_image

COMMANDS = {
    "/image": "/image PATH: an image that goes with the next question",
    "/clear": "/clear: forget the conversation and its images",
    "/help": "/help: these commands",
    "/exit": "/exit: end (so do an empty line and Ctrl-D; Ctrl-C ends an answer)",
}
WELCOME = "ask about the image, or just ask; /help lists commands; /exit, an empty line or Ctrl-D ends"

Answer = Callable[[list[dict[str, Any]]], Iterator[str]]


class Conversation:
    """What has been said, and the images that go with the next question."""

    def __init__(self, answer: Answer, images: Iterable[dict[str, Any]] = ()):
        """
        Args:
          answer: gives the answer to messages in pieces.
          images: image parts that go with the first question.
        """
        self._answer = answer
        self.messages: list[dict[str, Any]] = []
        self.images = list(images)

    def ask(self, question: str) -> Iterator[str]:
        """The answer in pieces; a question that was refused, or left before its answer began, counts as never asked."""
        parts = [*self.images, {"type": "text", "text": question}] if self.images else question
        message, pieces, finished = {"role": "user", "content": parts}, [], False
        try:
            for piece in self._answer([*self.messages, message]):
                pieces.append(piece)
                yield piece
            finished = True
        finally:
            if pieces or finished:
                self.messages += [message, {"role": "assistant", "content": "".join(pieces)}]
                self.images = []

    def obey(self, line: str) -> str | None:
        """Does what a command says; gives what to tell, None where the conversation ends.

        Raises:
          InputError: no such command, or no image that can be read.
        """
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command == "/image":
            if not rest:
                raise InputError("/image: name the image: /image PATH")
            self.images.append({"type": "image", "image": open_image(rest.strip("'\""))})
            return f"{rest}: goes with the next question"
        if command not in COMMANDS:
            near = difflib.get_close_matches(command, COMMANDS, n=1, cutoff=0.4)
            advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(COMMANDS)}"
            raise InputError(f"{command}: no such command; {advice} (/help explains them)")
        if rest:
            raise InputError(f"{command} takes nothing behind it, and {rest!r} was given")
        if command == "/clear":
            self.messages, self.images = [], []
            return "the conversation and its images are forgotten"
        return None if command == "/exit" else "\n".join(COMMANDS.values())


def is_command(line: str) -> bool:
    """Whether a line is a command rather than a question: a question may begin with a path, such as /etc/hosts."""
    return re.fullmatch(r"/[A-Za-z]*", line.partition(" ")[0]) is not None


def talk(
    conversation: Conversation,
    lines: Iterable[str],
    *,
    write: Callable[[str], None],
    say: Callable[[str], None],
    interactive: bool,
) -> None:
    """Answers line after line, until an empty one, /exit, or the end of the lines.

    Args:
      write: takes the pieces of answers.
      say: takes what is said about the conversation, a line each.
      interactive: whether a person is there: an error is printed and the next line read, and Ctrl-C ends an answer.
        Else both end the program.
    """
    if interactive:
        say(WELCOME)
    for line in map(str.strip, lines):
        if not line:
            return
        try:
            if is_command(line):
                if (reply := conversation.obey(line)) is None:
                    return
                say(reply)
                continue
            for piece in conversation.ask(line):
                write(piece)
            write("\n")
        except InputError as error:
            if not interactive:
                raise
            for one in error.lines:
                say(f"error: {one}")
        except KeyboardInterrupt:
            if not interactive:
                raise
            write("\n")
            say("the answer was ended")

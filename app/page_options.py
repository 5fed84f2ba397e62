"""What the chat page is started with: the words behind `--` of `streamlit run app/chat.py -- --model=…`."""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vlm_jax.errors import InputError

PROGRAM = "streamlit run app/chat.py --"
ADDRESSES = ("auto", "on", "off")


@dataclasses.dataclass(frozen=True)
class Options:
    """As the flags say.

    Attributes:
      models: their paths or hub ids; the first is asked first.
      load: options of `vlm_jax.load` for all of them.
      addresses: whether images are fetched from addresses: on, off, or auto, which is on where this machine alone
        reaches the page.
    """

    models: tuple[str, ...]
    models_in_memory: int
    max_new_tokens: int
    examples: str | None
    addresses: str
    load: dict[str, Any]


class _Parser(argparse.ArgumentParser):
    """Names the flag that was meant, and never completes one that is cut short."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _parser() -> _Parser:
    parser = _Parser(
        prog=PROGRAM,
        description="A page to talk with a model about images, in a browser.",
        epilog="Streamlit's own flags stand before the --, such as --server.port=8600. docs/chat_page.md tells more.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--model",
        action="append",
        metavar="PATH",
        help="Hugging Face folder, hub id, PEFT folder or run folder; several, such as before and after training, can "
        "be chosen from and compared",
    )
    add(
        "--models_in_memory",
        type=int,
        default=1,
        metavar="N",
        help="how many are held at one time; of more, one makes room for the other whenever it is asked (default 1)",
    )
    add(
        "--examples",
        metavar="FILE",
        help="records whose questions are shown to click on; else those that a run folder was validated with or "
        "trained on, else photographs that come with the package",
    )
    add(
        "--addresses",
        choices=ADDRESSES,
        default="auto",
        help="whether images are fetched from addresses that visitors give; auto (the default): where this machine "
        "alone reaches the page",
    )
    add("--max_new_tokens", type=int, default=256, metavar="N", help="tokens that an answer may have (default 256)")
    add("--quantise", choices=("nf4", "int8"), help="hold linear layers in 4 or 8 bits")
    add("--quantise_tables", action="store_true", help="with --quantise: embeddings and output layer in 8 bits, too")
    add("--tensor", type=int, default=1, metavar="N", help="devices among which the weights are divided (default 1)")
    return parser


def read_options(words: Sequence[str]) -> Options:
    """The options in the words behind `--`. `--help` prints what there is, and ends the program.

    Raises:
      InputError: an unknown flag, a missing model, or a value that cannot be.
    """
    parser = _parser()
    found, unknown = parser.parse_known_args(list(words))
    if unknown:
        raise InputError([_unknown(parser, word) for word in unknown])
    errors = [
        f"--{name}={getattr(found, name)}: wanted at least 1"
        for name in ("models_in_memory", "max_new_tokens", "tensor")
        if getattr(found, name) < 1
    ]
    if not found.model:
        errors.append(f"missing --model: {PROGRAM} --model=PATH (--help lists the flags)")
    if found.quantise_tables and not found.quantise:
        errors.append("--quantise_tables goes with --quantise")
    if errors:
        raise InputError(errors)
    load = {"quantise": found.quantise, "quantise_tables": found.quantise_tables, "tensor": found.tensor}
    return Options(
        tuple(found.model), found.models_in_memory, found.max_new_tokens, found.examples, found.addresses, load
    )


def _unknown(parser: argparse.ArgumentParser, word: str) -> str:
    if not word.startswith("--"):
        return f"{word}: not a flag; values are given as --name=value"
    name = word.partition("=")[0]
    near = difflib.get_close_matches(name, [flag for action in parser._actions for flag in action.option_strings], n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    return f"{name}: no such flag{advice} ({PROGRAM} --help lists them; Streamlit's own stand before the --)"


def fail(error: InputError) -> NoReturn:
    """Prints a line for each error, and ends the program."""
    for line in error.lines:
        print(f"error: {line}", file=sys.stderr)
    raise SystemExit(1)

"""Chat templates of strangers, rendered as transformers does, within bounds of work and of memory.

Jinja's sandbox keeps a template from the machine, but not from looping for hours or from filling the memory. So every
loop, call, operator and output is counted here while a conversation is rendered, and values are weighed before they
grow. What counts is the same on every machine, unlike a limit of seconds.

The environment is transformers' (`utils/chat_template_utils.py`): the same options, filters and functions.
"""

import datetime
import functools
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

LETTERS = 1_000_000
"""That a template may have, and that a value may have beyond `GROWTH` times the conversation's."""
GROWTH = 16
WORK = 100_000_000
"""Letters and elements handled in a rendering, an iteration or a call counting `_STEP`: some seconds."""
_STEP = 400
_BITS = 4096
_WIDEST = 1_000_000
_DEEPEST = 64  # indentation of JSON
_TO_TEXT = ("string", "tojson", "pprint", "join", "format", "format_map", "%", "xmlattr", "urlize", "e", "escape")
"""What writes out all that a value holds; other functions handle references to it."""
_SIZED = ("center", "ljust", "rjust", "zfill", "expandtabs", "indent", "wordwrap", "truncate", "batch", "slice")


class TooMuch(Exception):
    """A template asks for more work or memory than a conversation takes."""


class _Bounds(threading.local):
    """Of the rendering that a thread is in."""

    largest, left = LETTERS, 0

    def begin(self, letters: int) -> None:
        self.largest, self.left = LETTERS + GROWTH * letters, WORK + GROWTH * letters

    def charge(self, work: int) -> None:
        self.left -= work
        if self.left < 0:
            raise TooMuch("it loops for longer than any conversation takes")

    def check_size(self, size: int) -> None:
        if size > self.largest:
            raise TooMuch(f"it makes a value of {size:,} letters of a conversation that may give {self.largest:,}")


_bounds = _Bounds()


def _weight(value: Any) -> int:
    """Letters of a value as text, about: references that are held twice count twice."""
    waiting, total = [value], 0
    while waiting:
        one = waiting.pop()
        if isinstance(one, str | bytes | range):
            total += len(one)
        elif isinstance(one, Mapping):
            waiting += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            waiting += one
        elif isinstance(one, int):
            total += one.bit_length() // 3
        total += 4
        if total > _bounds.largest:
            break
    return total


def _weigh(*values: Any) -> int:
    found = sum(map(_weight, values))
    _bounds.check_size(found)
    _bounds.charge(found)
    return found


def _length(value: Any) -> int:
    """Of a value's outermost layer, or of a result."""
    size = len(value) if isinstance(value, str | bytes | range | list | tuple | Mapping | set) else 1
    _bounds.check_size(size)
    return size


def _check_growth(name: str, held: Sequence[Any]) -> None:
    """Raises TooMuch where a function, given these, could make more than a value may have."""
    texts = [one for one in held if isinstance(one, str)]
    total = _weigh(*held) if name in _TO_TEXT else sum(map(_length, held))
    _bounds.charge(total)
    numbers = [abs(one) for one in held if isinstance(one, int) and not isinstance(one, bool)]
    text = texts[0] if texts else ""
    if name in _SIZED:
        if max(numbers, default=0) > _WIDEST:
            raise TooMuch(f"it asks {name} for {max(numbers):,}")
        lines = text.count("\n") + text.count("\t") + 1
        total += lines * (sum(numbers) + sum(map(len, texts[1:])) + 8)
    elif name == "tojson" and max(numbers[-1:], default=0) > _DEEPEST and len(held) > 1:
        raise TooMuch(f"it asks for JSON with {numbers[-1]:,} spaces before each line")
    elif name == "join":
        pieces = next((one for one in held if isinstance(one, Sized) and not isinstance(one, str)), text)
        total += len(pieces) * sum(len(one) for one in texts if one is not pieces)
    elif name == "replace" and len(texts) > 2:
        total += (text.count(texts[1]) if texts[1] else len(text) + 1) * len(texts[2])
    elif name in ("%", "format", "format_map"):
        wide = sum(int(run[:12]) for run in re.findall(r"[0-9]+", text)) + sum(numbers)
        total += (text.count("%") + text.count("{")) * (total + wide)
    _bounds.check_size(total)


def _materialised(value: Any) -> Any:
    """What is made while it is looked at, as a list: it is counted like any other."""
    if isinstance(value, Iterator):
        return list(_counted(None, value))
    return value


@jinja2.pass_context
def _counted(context: Any, value: Any) -> Iterator[Any]:
    for one in value:
        _bounds.charge(_STEP)
        yield one


@jinja2.pass_context
def _written(context: Any, value: Any, literal: int = 0) -> Any:
    _weigh(value)
    _bounds.charge(literal + 1)
    return value


@jinja2.pass_context
def _joined(context: Any, values: Sequence[Any]) -> str:
    held = [_materialised(one) for one in values]
    _weigh(*held)
    return "".join(map(str, held))


def _bounded_filter(name: str, function: Callable) -> Callable:
    """A filter that is counted; of a context, so that Jinja does not work it out while it compiles."""
    passed = getattr(function, "jinja_pass_arg", None)
    given = passed.name if passed is not None else ""

    @jinja2.pass_context
    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def bounded(context, *args, **kwargs):
        _bounds.charge(_STEP)
        args = [_materialised(one) for one in args]
        _check_growth(name, [*args, *kwargs.values()])
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        result = function(*([first[given]] if given else []), *args, **kwargs)
        _bounds.charge(_length(result))
        return result

    return bounded


class _Counting(NodeTransformer):
    """Puts counters where a template loops, writes and joins."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = _filter("__counted", node.iter)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        literal = sum(len(one.data) for one in node.nodes if isinstance(one, nodes.TemplateData))
        node.nodes = [one if isinstance(one, nodes.TemplateData) else _filter("__written", one) for one in node.nodes]
        if literal:
            empty = nodes.Const("", lineno=node.lineno, environment=node.environment)
            length = nodes.Const(literal, lineno=node.lineno, environment=node.environment)
            node.nodes.append(_filter("__written", empty, length))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        held = nodes.List(node.nodes, lineno=node.lineno, environment=node.environment)
        return _filter("__joined", held)


def _filter(name: str, of: nodes.Expr, *more: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(of, name, list(more), [], None, None, lineno=of.lineno, environment=of.environment)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}`, by which some templates mark what the assistant said: what stands in it is written."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_written"), [], [], body).set_lineno(line)

    def _written(self, caller):
        return caller()


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def call_binop(self, context, operator, left, right):
        _bounds.charge(_STEP)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and numbers and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > _BITS:
                raise TooMuch("it makes a number of thousands of digits")
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > _BITS:
                raise TooMuch("it makes a number of thousands of digits")
        elif operator == "*" and not numbers:
            held, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int):
                _bounds.check_size(_weight(held) * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            _check_growth("%", [left, *(right if isinstance(right, tuple) else [right])])
        elif not numbers:
            _bounds.charge(_length(left) + _length(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context, obj, /, *args, **kwargs):
        _bounds.charge(_STEP)
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        name, held = getattr(method, "__name__", ""), getattr(method, "__self__", None)
        args = tuple(_materialised(one) for one in args)
        given = [*([held] if isinstance(held, str) else []), *args, *kwargs.values()]
        if isinstance(held, int | float | bytes) and any(isinstance(one, int) and one > _WIDEST for one in given):
            raise TooMuch(f"it asks {name} for more than {_WIDEST:,}")
        _check_growth(name if isinstance(name, str) else "", given)
        result = super().call(context, obj, *args, **kwargs)
        _bounds.charge(_length(result))
        return result


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def _strftime_now(form):
    return datetime.datetime.now().strftime(form)


class _Namespace(jinja2.utils.Namespace):
    """As Jinja's, without names that begin with an underscore."""

    def __init__(*args, **kwargs):
        self, *rest = args
        held = dict(*rest, **kwargs)
        for name in held:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, held)

    def __setitem__(self, name, value):
        _check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template stores {name!r}, which begins with an underscore")


def _dict(*args, **kwargs):
    return dict(*args, **kwargs)


@functools.lru_cache(maxsize=16)
def _compiled(text: str) -> jinja2.Template:
    if len(text) > LETTERS:
        raise TooMuch(f"it has {len(text):,} letters; {LETTERS:,} are read")
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.filters = {name: _bounded_filter(name, one) for name, one in environment.filters.items()}
    environment.filters |= {"__counted": _counted, "__written": _written, "__joined": _joined}
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "dict": _dict}
    environment.globals["namespace"] = _Namespace
    del environment.globals["lipsum"]  # random words, as many as are asked for
    return environment.from_string(_Counting().visit(environment.parse(text)))


def plain(value: Any) -> Any:
    """A value as a template sees it: of a picture that is no path or address, the name of its type.

    transformers does the same: methods of such objects could do more than the sandbox knows of.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    return f"<{type(value).__name__}>"


def render(text: str, messages: Sequence[Mapping[str, Any]], *, generation_prompt: bool, **more: Any) -> str:
    """A conversation as text.

    Args:
      more: further variables of the template; the tokenizer's special tokens.

    Raises:
      TooMuch: of work or memory. Jinja's errors and what a template raises itself go through.
    """
    if not messages:
        raise ValueError("there are no messages")
    held = [{key: plain(value) for key, value in one.items() if value is not None} for one in messages]
    _bounds.begin(_letters(held))
    template = _compiled(text)
    pieces, letters = [], 0
    for piece in template.generate(
        messages=held, tools=None, documents=None, add_generation_prompt=generation_prompt, **more
    ):
        letters += len(piece)
        _bounds.check_size(letters)
        pieces.append(piece)
    return "".join(pieces)


def _letters(value: Any) -> int:
    """Letters of all texts in a conversation."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_letters, value.values()))
    return sum(map(_letters, value)) if isinstance(value, list) else 4

"""Chat templates of strangers, rendered as transformers does, within the bounds of `template_bounds`.

The environment is transformers' (`utils/chat_template_utils.py`): the same options, filters and functions. Every loop,
call, comparison, operator and output of a template is made to pass a counter while a conversation is rendered.
"""

import datetime
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from vlm_jax.processing.template_bounds import (
    BITS,
    DEEP,
    LETTERS,
    NODE,
    STEP,
    TooMuch,
    bounds,
    charge_made,
    check_growth,
    length,
    weigh,
    weight,
)

TAKE_ALL = (*DEEP, "list", "batch", "slice")
"""Filters that take all there is of what is made while it is looked at."""
_TEXT_METHODS = frozenset(
    "capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha isascii "
    "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip "
    "partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines "
    "startswith strip swapcase title upper zfill".split()
)


def _materialised(value: Any) -> Any:
    """What is made while it is looked at, as a list: it is counted like any other."""
    if isinstance(value, Iterator):
        return list(_counted(None, value))
    return value


def _lazily(value: Any) -> Any:
    return _counted(None, value) if isinstance(value, Iterator) else value


@jinja2.pass_context
def _counted(context: Any, value: Any, nodes_within: int = 0) -> Iterator[Any]:
    for one in value:
        bounds.charge(STEP + nodes_within)
        yield one


@jinja2.pass_context
def _compared(context: Any, value: Any) -> Any:
    """What is compared, looked for, looked in or hashed: all of it may be looked at."""
    if not isinstance(value, Mapping):
        weigh(value)
    return value


@jinja2.pass_context
def _sliced(context: Any, value: Any) -> Any:
    """A slice: a copy."""
    charge_made(value)
    return value


@jinja2.pass_context
def _written(context: Any, value: Any, literal: int = 0) -> Any:
    weigh(value)
    bounds.charge(literal + 1)
    return value


@jinja2.pass_context
def _joined(context: Any, values: Sequence[Any]) -> str:
    pieces = [_materialised(one) for one in values]
    weigh(*pieces)
    return "".join(map(str, pieces))


def _bounded_filter(name: str, function: Callable) -> Callable:
    """A filter that is counted; of a context, so that Jinja does not work it out while it compiles."""
    passed = getattr(function, "jinja_pass_arg", None)
    passed_name = passed.name if passed is not None else ""

    @jinja2.pass_context
    @functools.wraps(function, assigned=("__name__", "__doc__"), updated=())
    def bounded(context, *args, **kwargs):
        bounds.charge(STEP)
        args = [_materialised(one) if name in TAKE_ALL else _lazily(one) for one in args]
        check_growth(name, [*args, *kwargs.values()])
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        result = function(*([first[passed_name]] if passed_name else []), *args, **kwargs)
        charge_made(result)
        return result

    return bounded


def _bounded_test(function: Callable) -> Callable:
    """A test that is counted: what it compares is weighed. Those that ask the environment look at names alone."""
    if getattr(function, "jinja_pass_arg", None) is not None:
        return function

    def bounded(*args):
        bounds.charge(STEP)
        if len(args) > 1:
            weigh(*(one for one in args if not isinstance(one, Mapping)))
        return function(*args)

    return bounded


class _Counting(NodeTransformer):
    """Puts counters where a template loops, writes and joins."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        within = _constant(node, NODE * sum(1 for body in (*node.body, *node.else_) for _ in body.find_all(nodes.Node)))
        self.generic_visit(node)
        node.iter = _filter("__counted", node.iter, within)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:
        within = _constant(node, NODE * sum(1 for body in node.body for _ in body.find_all(nodes.Node)))
        self.generic_visit(node)
        output = nodes.Output([_filter("__written", _constant(node, ""), within)], lineno=node.lineno)
        output.set_environment(node.environment)
        node.body.insert(0, output)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _unless_constant("__compared", node.expr)
        for operand in node.ops:
            operand.expr = _unless_constant("__compared", operand.expr)
        return node

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:
        self.generic_visit(node)
        node.key = _unless_constant("__compared", node.key)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter("__sliced", node) if node.ctx == "load" else node
        node.arg = _unless_constant("__compared", node.arg)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        literal = sum(len(one.data) for one in node.nodes if isinstance(one, nodes.TemplateData))
        node.nodes = [one if isinstance(one, nodes.TemplateData) else _filter("__written", one) for one in node.nodes]
        if literal:
            node.nodes.append(_filter("__written", _constant(node, ""), _constant(node, literal)))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        pieces = nodes.List(node.nodes, lineno=node.lineno, environment=node.environment)
        return _filter("__joined", pieces)


def _filter(name: str, of: nodes.Expr, *more: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(of, name, list(more), [], None, None, lineno=of.lineno, environment=of.environment)


def _unless_constant(name: str, of: nodes.Expr) -> nodes.Expr:
    return of if isinstance(of, nodes.Const) else _filter(name, of)


def _constant(beside: nodes.Node, value: Any) -> nodes.Const:
    return nodes.Const(value, lineno=beside.lineno, environment=beside.environment)


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
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "**", "%"])

    def call_binop(self, context, operator, left, right):
        bounds.charge(STEP)
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" and numbers and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() * abs(right) > BITS:
                raise TooMuch("it makes a number of thousands of digits")
        elif operator == "*" and isinstance(left, int) and isinstance(right, int):
            if left.bit_length() + right.bit_length() > BITS:
                raise TooMuch("it makes a number of thousands of digits")
        elif operator == "*" and not numbers:
            value, times = (right, left) if isinstance(left, int) else (left, right)
            if isinstance(times, int):
                bounds.check_size(weight(value) * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            check_growth("%", [left, *(right if isinstance(right, tuple) else [right])])
        elif not numbers:
            bounds.charge(length(left) + length(right))
        result = super().call_binop(context, operator, left, right)
        bounds.charge(length(result))
        return result

    def call(self, context, obj, /, *args, **kwargs):
        bounds.charge(STEP)
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        name, receiver = getattr(method, "__name__", ""), getattr(method, "__self__", None)
        args = tuple(_materialised(one) for one in args)
        values = [*([receiver] if isinstance(receiver, str) else []), *args, *kwargs.values()]
        if isinstance(receiver, bytes | int | float) or isinstance(receiver, str) and name not in _TEXT_METHODS:
            raise TooMuch(f"it calls {type(receiver).__name__}.{name}, of which no chat template has need")
        weigh(*(one for one in args if isinstance(one, tuple)))  # may be hashed
        check_growth(name if isinstance(name, str) else "", values)
        result = super().call(context, obj, *args, **kwargs)
        charge_made(result)
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
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name, value):
        _check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a chat template stores {name!r}, which begins with an underscore")


class _Dict:
    """`dict` and `dict.fromkeys`, and nothing else of the type."""

    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


@functools.lru_cache(maxsize=16)
def _compiled(text: str) -> jinja2.Template:
    if len(text) > LETTERS:
        raise TooMuch(f"it has {len(text):,} letters; {LETTERS:,} are read")
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.filters = {name: _bounded_filter(name, one) for name, one in environment.filters.items()}
    environment.tests = {name: _bounded_test(one) for name, one in environment.tests.items()}
    environment.filters |= {
        "__counted": _counted, "__written": _written, "__joined": _joined, "__compared": _compared, "__sliced": _sliced
    }  # fmt: skip
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now, "dict": _Dict()}
    environment.globals["namespace"] = _Namespace
    del environment.globals["lipsum"]  # random words, as many as are asked for
    return environment.from_string(_Counting().visit(environment.parse(text)))


def plain(value: Any) -> Any:
    """A value as a template sees it: of an image that is no path or address, the name of its type.

    transformers does the same: methods of such objects could do more than the sandbox knows of.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
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
    plain_messages = [{key: plain(value) for key, value in one.items() if value is not None} for one in messages]
    bounds.begin(_letters(plain_messages), len(plain_messages))
    template = _compiled(text)
    pieces, letters = [], 0
    for piece in template.generate(
        messages=plain_messages, tools=None, documents=None, add_generation_prompt=generation_prompt, **more
    ):
        letters += len(piece)
        bounds.check_size(letters)
        pieces.append(piece)
    return "".join(pieces)


def _letters(value: Any) -> int:
    """Letters of all texts in a conversation."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_letters, value.values()))
    return sum(map(_letters, value)) if isinstance(value, list) else 4

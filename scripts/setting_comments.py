"""What each setting of a config means: the comments that stand beside it in the source, for --help.

A comment at the end of a setting's line is about that setting; lines of comments right above a setting or a group are
about what follows them. Read from the source itself, so that help and source cannot differ.
"""

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path


def comments_of(config_file: Path) -> dict[str, str]:
    """{`section.name`: comment} of a config file; with those of the defaults that it starts from."""
    source = config_file.read_text(encoding="utf-8")
    found = comments(source)
    if "default_config" in source:
        from vlm_jax.training import config

        found |= comments(Path(config.__file__).read_text(encoding="utf-8"))
    if "parity_config" in source:
        from data_pipeline.parity import settings as parity_settings
        from vlm_jax.training import config

        found |= comments(Path(parity_settings.__file__).read_text(encoding="utf-8"))
        of_training = comments(Path(config.__file__).read_text(encoding="utf-8"))
        found |= {f"training.{key}": comment for key, comment in of_training.items()}
        _add_teachers(found, ("text", "judge"))
    if "corpus_config" in source:
        from data_pipeline.corpus import settings
        from data_pipeline.corpus.filters.registry import FILTERS

        found |= comments(Path(settings.__file__).read_text(encoding="utf-8"))
        _add_teachers(found, settings.TEACHERS)
        found |= {
            f"filters.{name}": (filter.check.__doc__ or "").partition("\n")[0] for name, filter in FILTERS.items()
        }
    return found


def _add_teachers(found: dict[str, str], names: Sequence[str]) -> None:
    from data_pipeline.teachers import settings as teacher_settings

    of_kinds = comments(Path(teacher_settings.__file__).read_text(encoding="utf-8"))
    for key, comment in of_kinds.items():
        for teacher in names:
            found.setdefault(f"teachers.{teacher}.{key.rpartition('.')[2]}", comment)


def comments(source: str) -> dict[str, str]:
    """{dotted key: comment} of the settings and groups in Python source: dictionaries within each other, keywords of
    calls, and assignments such as `config.train.steps = 100`."""
    beside, above = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            lines = above if not token.line[: token.start[1]].strip() else beside
            lines[token.start[0]] = token.string.lstrip("#").strip()
    found: dict[str, str] = {}
    for key, first, last in _settings(ast.parse(source)):
        block, line = [], first - 1
        while line in above:
            block.insert(0, above[line])
            line -= 1
        # The end of a group's last line is the last setting's.
        own = beside.get(first) or beside.get(last)
        if text := " ".join([*block, *([own] if own else [])]):
            found.setdefault(key, text)
    return found


def _settings(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """(dotted key, first line, last line) of every setting; of a group that takes several lines, its first line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from _within(node.value, "")
        elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict):
            yield from _within(node.value, "")
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                _, _, key = ast.unparse(target).partition(".")
                if key and isinstance(target, ast.Attribute):
                    yield key, node.lineno, _end(node)
                    yield from _within(node.value, f"{key}.")


def _within(value: ast.expr, prefix: str) -> Iterator[tuple[str, int, int]]:
    if isinstance(value, ast.Call):
        for argument in value.args:
            yield from _within(argument, prefix)
        for keyword in value.keywords:
            if keyword.arg:
                yield f"{prefix}{keyword.arg}", keyword.lineno, _end(keyword)
                yield from _within(keyword.value, f"{prefix}{keyword.arg}.")
    elif isinstance(value, ast.Dict):
        for key, item in zip(value.keys, value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                nested = isinstance(item, ast.Dict) and item.lineno != item.end_lineno
                yield f"{prefix}{key.value}", key.lineno, key.lineno if nested else item.end_lineno
                if item.lineno != key.lineno or nested or not isinstance(item, ast.Dict):
                    yield from _within(item, f"{prefix}{key.value}.")


def _end(node: ast.AST) -> int:
    value = node.value
    return (
        node.lineno if isinstance(value, ast.Dict | ast.Call) and value.lineno != value.end_lineno else node.end_lineno
    )

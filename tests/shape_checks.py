"""Has functions check their arguments and results against the shapes that their annotations say.

Private parts of jaxtyping are used, for it knows no other way to leave functions out.
"""

import ast
from collections.abc import Sequence

from beartype import beartype
from jaxtyping import _import_hook, install_import_hook


class Checked(_import_hook.JaxtypingTransformer):
    """Leaves out functions within functions that say no shape.

    They are made with every call of the outer one, and preparing the check took longer than what they do.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        inner = any(isinstance(parent, ast.FunctionDef) for parent in self._parents)
        before = list(node.decorator_list)
        super().visit_FunctionDef(node)
        if inner and not _says_a_shape(node):
            node.decorator_list = before
        return node


def _says_a_shape(node: ast.FunctionDef) -> bool:
    """Whether anything in its annotations is like `Float[Array, "rows width"]`."""
    parts = node.args
    arguments = [*parts.posonlyargs, *parts.args, *parts.kwonlyargs, parts.vararg, parts.kwarg]
    annotations = [argument.annotation for argument in arguments if argument] + [node.returns]
    inside = [part for annotation in annotations if annotation for part in ast.walk(annotation)]
    tuples = [part.elts for part in inside if isinstance(part, ast.Tuple)]
    return any(elements and isinstance(elements[-1], ast.Constant) for elements in tuples)


def check(function, *args, **options):
    """Beartype, under a name of our own: what jaxtyping compiled for others is not taken for what is wanted here."""
    return beartype(function, *args, **options)


def install(modules: Sequence[str]):
    """For modules that are not loaded yet. The hook ends when what is returned is collected."""
    _import_hook.JaxtypingTransformer = Checked
    return install_import_hook(modules, f"{__name__}.{check.__name__}")

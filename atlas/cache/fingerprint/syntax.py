"""Syntax trees of modules: parsed without docstrings, walked once, copied before they are changed."""

import ast
from functools import cache
from typing import TypeVar

Node = TypeVar("Node", bound=ast.AST)
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # fields that hold statements


def parse(text: str, file: str) -> ast.Module:
    """Parse a module without the docstrings of its functions, classes and fields.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(text, file)
    waiting: list[ast.AST] = [*tree.body]
    for node in waiting:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            node.body = [one for one in node.body if not _is_text(one)] or [ast.Pass()]
        waiting += [one for field in BLOCKS for one in getattr(node, field, ())]
    return tree


@cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return all nodes of a syntax tree as `ast.walk` finds them. The tree must not be changed afterwards."""
    return tuple(ast.walk(tree))


def copied(node: Node) -> Node:
    """Return a deep copy of a syntax tree; `copy.deepcopy` takes several times as long."""
    new = type(node).__new__(type(node))
    vars(new).update({name: _copied(value) for name, value in vars(node).items()})
    return new


def _copied(value: object) -> object:
    if isinstance(value, list):
        return [_copied(one) for one in value]
    return copied(value) if isinstance(value, ast.AST) else value


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

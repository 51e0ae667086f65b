"""Remove from a definition what its setting types accept: that limits which settings are valid and changes no value.

A key holds the names of the types in signatures, but not their ranges and descriptions, whether these stand in
`atlas.study.schema.types` or in the signature itself. Any other use of a type in a definition is followed like all
names, and code that looks up its annotations is digested by whole modules.
"""

import ast
from typing import cast

from atlas.cache.fingerprint.inert import dotted
from atlas.cache.fingerprint.syntax import copied, nodes

TYPES = "atlas.study.schema.types"


def without_ranges(node: ast.stmt, imports: dict[str, tuple[str, str]]) -> ast.stmt:
    """Return a definition without the ranges and descriptions in its signature.

    Args:
        node: The definition; it is not modified.
        imports: What names are imported from, in the definition and in its module.
    """
    if not {("typing", "Annotated"), ("typing", "")} & set(imports.values()):
        return node
    return cast("ast.stmt", _Signatures(imports).visit(copied(node)))


def types_in(node: ast.stmt, imports: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Return the shared setting types that a definition uses in signatures only, by their local names."""
    if all(origin != TYPES for origin, _ in imports.values()):
        return {}
    typed = {id(inner) for one in _annotations(node) for inner in ast.walk(one)}
    used = [inner for inner in nodes(node) if isinstance(inner, ast.Name)]
    elsewhere = {one.id for one in used if id(one) not in typed}
    known = {one.id: imports[one.id] for one in used if one.id in imports and one.id not in elsewhere}
    return {name: imported[1] for name, imported in known.items() if imported[0] == TYPES and imported[1]}


class _Signatures(ast.NodeTransformer):
    def __init__(self, imports: dict[str, tuple[str, str]]) -> None:
        self.imports = imports

    def visit_arg(self, node: ast.arg) -> ast.arg:
        if node.annotation is not None:
            node.annotation = _Annotation(self.imports).visit(node.annotation)
        return node


class _Annotation(_Signatures):
    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        if dotted(node.value, self.imports, set()) != "typing.Annotated" or not isinstance(node.slice, ast.Tuple):
            return node
        kind, *marks = node.slice.elts
        kept = [one for one in marks if not self.tells(one)]
        return ast.Subscript(node.value, ast.Tuple([kind, *kept], ast.Load()), ast.Load()) if kept else kind

    def tells(self, mark: ast.expr) -> bool:
        """Return whether an annotation's metadata is a description or a class of the module of types."""
        if isinstance(mark, ast.Call):
            return dotted(mark.func, self.imports, set()).rpartition(".")[0] == TYPES
        return isinstance(mark, ast.Constant) and isinstance(mark.value, str)


def _annotations(node: ast.stmt) -> list[ast.expr]:
    return [one.annotation for one in nodes(node) if isinstance(one, ast.arg) and one.annotation is not None]

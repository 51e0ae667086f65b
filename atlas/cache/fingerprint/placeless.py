"""Spell a definition so that no module of this project is named in it: one that moves changes no key.

What a name stands for is told beside the text, by the number of what it reaches (`atlas.cache.fingerprint.source`).
"""

import ast

from atlas.cache.fingerprint.modules import bindings, is_module, is_project

# What tells where a module stands; and who asks that of classes and functions of packages alone.
PLACES = ("__file__", "__module__", "__package__", "__path__", "__spec__")
OF_PACKAGES = {
    ("atlas.methods.shared.relevance.graph", "_kind"),
    ("atlas.model.graph.explicit", "separate_attention"),
    ("atlas.model.outputs", "selected"),
    ("atlas.model.graph.rewriting", "_idle"),
    ("atlas.model.weights", "unwrapped"),
    ("atlas.networks.shared.adapted", "sized"),
}


def named_modules(node: ast.stmt, imports: dict[str, tuple[str, str]]) -> set[str]:
    """Name what stands for a module of this project wherever a definition uses it, to take attributes of it alone."""
    used = [
        inner for inner in ast.walk(node) if isinstance(inner, ast.Name) and is_module(imports.get(inner.id, ("", "")))
    ]
    taken = {id(inner.value) for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
    other = {one.id for one in used if id(one) not in taken or not isinstance(one.ctx, ast.Load)}
    inside = [inner for inner in ast.walk(node) if not isinstance(inner, ast.alias)]
    bound_otherwise = {getattr(inner, field, None) for inner in inside for field in ("arg", "name", "rest")}
    return {one.id for one in used} - other - bound_otherwise


class Placeless(ast.NodeTransformer):
    """Take the names and places of this project's modules out of a definition: names are told apart by numbers."""

    def __init__(self, module: str, named: set[str]) -> None:
        self.module, self.named = module, named
        self.numbers: dict[str, str] = {}

    def number(self, name: str) -> str:
        """Return what stands for a module's name: its number among those of the definition, as they come."""
        return self.numbers.setdefault(name, str(len(self.numbers)))

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Leave out the name of a module."""
        return ast.Name(self.number(node.id), node.ctx) if node.id in self.named else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """Leave out where something is imported from, but not the names that this binds."""
        found = bindings(node, self.module)
        if "*" in found or not all(map(is_project, found.values())):
            return node
        names = [self.number(name) if name in self.named else name for name in found]
        return ast.ImportFrom("", list(map(ast.alias, names)), 0)


def asks_place(at: tuple[str, str], node: ast.stmt) -> bool:
    """Return whether a definition asks where a module stands, so that its value may change when one moves."""
    if at in OF_PACKAGES:
        return False
    for inner in ast.walk(node):
        asked = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "value", None)
        if isinstance(inner, ast.Attribute | ast.Constant) and asked in PLACES:
            return True
        if isinstance(inner, ast.Name) and inner.id in {*PLACES, "__name__"}:
            return True
    return False

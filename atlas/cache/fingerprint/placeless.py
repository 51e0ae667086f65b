"""Write out a definition without the names of this project's modules, so that moving a module changes no key.

What a name refers to is recorded beside the text, by the number of its target (`atlas.cache.fingerprint.source`).
"""

import ast

from atlas.cache.fingerprint.modules import bindings, is_module, is_project
from atlas.cache.fingerprint.syntax import copied, nodes

# Attributes that reveal where a module lies; OF_PACKAGES ask them only of code of packages.
PLACES = ("__file__", "__module__", "__package__", "__path__", "__spec__")
OF_PACKAGES = {
    ("atlas.methods.shared.relevance.graph", "_kind"),
    ("atlas.model.graph.explicit", "separate_attention"),
    ("atlas.model.outputs", "selected"),
    ("atlas.model.graph.rewriting", "_idle"),
    ("atlas.classifiers.weights", "unwrapped"),
    ("atlas.networks.shared.adapted", "sized"),
}


def named_modules(node: ast.stmt, imports: dict[str, tuple[str, str]]) -> set[str]:
    """Return the names that a definition uses for modules of this project, and only to take attributes of them."""
    used = [
        inner for inner in nodes(node) if isinstance(inner, ast.Name) and is_module(imports.get(inner.id, ("", "")))
    ]
    taken = {id(inner.value) for inner in nodes(node) if isinstance(inner, ast.Attribute)}
    other = {one.id for one in used if id(one) not in taken or not isinstance(one.ctx, ast.Load)}
    inside = [inner for inner in nodes(node) if not isinstance(inner, ast.alias)]
    bound_otherwise = {getattr(inner, field, None) for inner in inside for field in ("arg", "name", "rest")}
    return {one.id for one in used} - other - bound_otherwise


def placeless(node: ast.stmt, module: str, imports: dict[str, tuple[str, str]]) -> str:
    """Return a definition as text, without the names and paths of this project's modules.

    Args:
        node: The definition; it is not modified.
        module: Its module.
        imports: What names are imported from, in the definition and in its module.
    """
    named = named_modules(node, imports)
    if named or any(isinstance(inner, ast.ImportFrom) for inner in nodes(node)):
        return ast.dump(_Placeless(module, named).visit(copied(node)))
    return ast.dump(node)


class _Placeless(ast.NodeTransformer):
    """Remove the names and paths of this project's modules from a definition; names are replaced by numbers."""

    def __init__(self, module: str, named: set[str]) -> None:
        self.module, self.named = module, named
        self.numbers: dict[str, str] = {}

    def number(self, name: str) -> str:
        """Return the placeholder of a module's name: its number in the definition, by order of appearance."""
        return self.numbers.setdefault(name, str(len(self.numbers)))

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Replace the name of a module."""
        return ast.Name(self.number(node.id), node.ctx) if node.id in self.named else node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        """Remove the module that something is imported from, but keep the names that are bound."""
        found = bindings(node, self.module)
        if "*" in found or not all(map(is_project, found.values())):
            return node
        names = [self.number(name) if name in self.named else name for name in found]
        return ast.ImportFrom("", list(map(ast.alias, names)), 0)


def asks_place(at: tuple[str, str], node: ast.stmt) -> bool:
    """Return whether a definition asks where a module lies, so that its result may change when the module moves."""
    if at in OF_PACKAGES:
        return False
    for inner in nodes(node):
        asked = inner.attr if isinstance(inner, ast.Attribute) else getattr(inner, "value", None)
        if isinstance(inner, ast.Attribute | ast.Constant) and asked in PLACES:
            return True
        if isinstance(inner, ast.Name) and inner.id in {*PLACES, "__name__"}:
            return True
    return False

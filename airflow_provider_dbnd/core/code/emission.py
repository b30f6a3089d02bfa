"""Writing syntax trees as text, with holes for the names that come from outside."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.code.scopes import Imported, Scope

#: Stands in the text for a reference.
HOLE = "\x01"

_WITHOUT_MEANING = frozenset(("ctx", "kind", "type_comment", "simple"))
_SEE_LOCALS = frozenset(("eval", "exec", "locals", "vars"))


@dataclass(frozen=True, slots=True)
class Reference:
    """A name from outside, with the attributes taken of it: a free one, or one imported here."""

    name: str
    imported: Imported | None
    attributes: tuple[str, ...]


@dataclass(slots=True)
class Form:
    """One piece of source in normal form.

    ``spots`` are places (what, line) whose meaning only shows when they run; ``changes`` are the
    outer names whose value functions in it change, with a line.
    """

    shape: str = ""
    references: list[Reference] = field(default_factory=list)
    spots: list[tuple[str, int]] = field(default_factory=list)
    changes: dict[str, int] = field(default_factory=dict)


class Emitter(ast.NodeVisitor):
    """Writes nodes one after the other to ``out``.

    :param roots: the nodes that will be written
    :param imports: what the module's import statements bind
    """

    def __init__(self, roots: Sequence[ast.AST], imports: Mapping[str, Imported]) -> None:
        self.form = Form()
        self.out: list[str] = []
        self._imports = imports
        self._scopes: list[Scope] = []
        self._locals = 0
        self._words, self._keep_all = _words(roots)

    def generic_visit(self, node: ast.AST) -> None:
        """Write a node by its class and the fields it has."""
        self.out.append(f"({type(node).__name__}")
        for name in node._fields:
            if name not in _WITHOUT_MEANING:
                self._field(name, getattr(node, name, None))
        self.out.append(")")

    def _field(self, name: str, value: Any) -> None:
        # Newer versions of Python have fields that are empty for what older ones know.
        if isinstance(value, list):
            value = [each for each in value if not _does_nothing(each)]
            if not value:
                return
            self.out.append(f" {name}=[")
            for each in value:
                self._one(each)
            self.out.append("]")
        elif value is not None:
            self.out.append(f" {name}=")
            self._one(value)

    def _one(self, value: Any) -> None:
        if isinstance(value, ast.AST):
            self.visit(value)
        else:
            self._text(value)

    def _text(self, value: object) -> None:
        # repr() of text follows the Unicode tables of one version of Python; long numbers have none.
        shown = f"{value:x}" if type(value) is int else ascii(value)
        self.out.append(f"{type(value).__name__}:{shown} ")

    def _hole(self, reference: Reference) -> None:
        self.out.append(HOLE)
        self.form.references.append(reference)

    def _lookup(self, name: str) -> Scope | None:
        """Return the scope that binds *name*, or None where it comes from outside."""
        innermost = True
        for scope in reversed(self._scopes):
            if name in scope.global_:
                return None
            visible = scope.kind == "function" or innermost
            if visible and name in scope.bound and name not in scope.nonlocal_:
                return scope
            innermost = False
        return None

    def _reference(self, name: str, attributes: Sequence[str] = ()) -> Reference | None:
        scope = self._lookup(name)
        if scope is None:
            return Reference(name, None, tuple(attributes))
        if name in scope.imports:
            return imported_reference(scope.imports[name], attributes)
        return None

    def _local(self, name: str) -> None:
        scope = self._lookup(name)
        assert scope is not None
        kept = self._keep_all or scope.kind == "class" or name in scope.kept or name in self._words
        if kept:
            self.out.append(f"name:{name} ")
            return
        if name not in scope.numbers:
            scope.numbers[name] = self._locals
            self._locals += 1
        self.out.append(f"local:{scope.numbers[name]} ")

    def _chain(self, node: ast.expr) -> bool:
        """Write ``a.b.c`` as one reference if ``a`` is one; else write nothing, return False."""
        attributes: list[str] = []
        while taken := self._attribute_taken(node):
            node, name = taken
            attributes.insert(0, name)
        reference = self._reference(node.id, attributes) if isinstance(node, ast.Name) else None
        if reference is None or reference.name == "__file__":
            return False
        self._hole(reference)
        return True

    def _attribute_taken(self, node: ast.expr) -> tuple[ast.expr, str] | None:
        """Return the object and the name for ``x.name`` and ``getattr(x, "name")``."""
        if isinstance(node, ast.Attribute):
            return node.value, node.attr
        if isinstance(node, ast.Call) and len(node.args) == 2 and self._calls(node, "getattr"):
            name = constant_text(node.args[1])
            return None if name is None else (node.args[0], name)
        return None

    def _calls(self, node: ast.Call, builtin: str) -> bool:
        function = node.func
        return (
            isinstance(function, ast.Name)
            and function.id == builtin
            and self._lookup(builtin) is None
        )


def imported_reference(imported: Imported, attributes: Sequence[str] = ()) -> Reference:
    """Return the reference to what an import binds, or to attributes of it."""
    own = () if imported.attribute is None else (imported.attribute,)
    return Reference(imported.start, imported, (*own, *attributes))


def constant_text(node: ast.expr) -> str | None:
    """Return the text of a string that is written out."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def root_name(node: ast.expr) -> str | None:
    """Return ``a`` for ``a.b[c].d``."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _does_nothing(node: object) -> bool:
    """Tell whether a statement is a docstring, ``...`` or ``pass``."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Pass)


def _words(roots: Sequence[ast.AST]) -> tuple[frozenset[str], bool]:
    """Return the words in strings, and whether something sees local variables by their names."""
    texts: list[str] = []
    sees = False
    for node in _meaningful(roots):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        sees |= isinstance(node, ast.Name) and node.id in _SEE_LOCALS
    return frozenset(re.findall(r"\w+", " ".join(texts))), sees


def _meaningful(roots: Sequence[ast.AST]) -> Iterator[ast.AST]:
    rest = list(roots)
    while rest:
        node = rest.pop()
        yield node
        rest.extend(each for each in ast.iter_child_nodes(node) if not _does_nothing(each))

"""The spots in source whose meaning only shows when they run."""

from __future__ import annotations

import ast

from airflow_provider_dbnd.core.code.emission import (
    Emitter,
    Reference,
    constant_text,
    imported_reference,
    root_name,
)
from airflow_provider_dbnd.core.code.scopes import Imported

_IMPORTERS = frozenset(("import_module", "__import__"))
#: Methods that change a list, a set, a dict or a deque.
_CHANGERS = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
        "difference_update",
        "intersection_update",
        "symmetric_difference_update",
    ]
)


class BlindSpots(Emitter):
    """Notes what cannot be seen while it writes the nodes that may hold it."""

    def visit_Name(self, node: ast.Name) -> None:
        """Write a variable, or a hole for one from outside."""
        storing = not isinstance(node.ctx, ast.Load)
        if not self._scopes and storing:
            self.out.append(f"name:{node.id} ")
            return
        reference = self._reference(node.id)
        if reference is None:
            self._local(node.id)
            if not storing and self._scopes[-1].kind == "class":
                # Until the class body binds the name, it is the one outside.
                self._hole(Reference(node.id, None, ()))
            return
        if storing and reference.imported is None:
            self._changed(node.id, node)
        if node.id == "__file__":
            self._spot("__file__, beside which files may be read,", node)
        self._hole(reference)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Write ``a.b``, as one hole where ``a`` is from outside."""
        if node.attr == "__doc__":
            self._spot("a docstring, which does not count,", node)
        elif node.attr == "modules" and root_name(node) == "sys":
            self._spot("sys.modules", node)
        if not isinstance(node.ctx, ast.Load):
            self._patched(node)
        if not self._chain(node):
            self._attribute(node.value, node.attr)

    def _attribute(self, value: ast.expr, name: str) -> None:
        self.visit(value)
        self.out.append(f".{name} ")

    def visit_Call(self, node: ast.Call) -> None:
        """Write a call."""
        taken = self._attribute_taken(node)
        if taken is not None:
            # getattr(x, "name") with nothing computed is x.name.
            if not self._chain(node):
                self._attribute(*taken)
            return
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name and self._lookup(name) is None:
            self._builtin_called(name, node)
        last = node.func.attr if isinstance(node.func, ast.Attribute) else name
        if last in _IMPORTERS:
            self._module_imported(last, node)
        if isinstance(node.func, ast.Attribute) and last in _CHANGERS:
            self._changed(root_name(node.func), node)
        self.generic_visit(node)

    def _builtin_called(self, name: str, node: ast.Call) -> None:
        if name in ("getattr", "setattr", "delattr") and len(node.args) > 1:
            self._attribute_named(name, node)
        elif name in ("eval", "exec"):
            self._spot(f"{name}()", node)
        elif name == "globals":
            self._spot("globals()", node)

    def _attribute_named(self, name: str, node: ast.Call) -> None:
        outer = self._is_outer(root_name(node.args[0]))
        written = constant_text(node.args[1])
        if written is None:
            # What an object does with its own attributes is its own affair.
            if name == "getattr" or outer:
                self._spot(f"{name} with a computed name", node)
            return
        taken = ast.copy_location(ast.Attribute(node.args[0], written, ast.Load()), node)
        if name == "getattr":
            self._chain(taken)
        elif outer:
            self._patched(taken)

    def _module_imported(self, name: str, node: ast.Call) -> None:
        written = constant_text(node.args[0]) if node.args else None
        if written is None or written.startswith("."):
            self._spot(f"{name} with a computed name", node)
        else:
            self._hole(imported_reference(Imported((written,), written)))

    def visit_Subscript(self, node: ast.Subscript) -> None:
        """Write ``a[b]``."""
        if not isinstance(node.ctx, ast.Load):
            self._changed(root_name(node), node)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        """Write nothing: every use of the names is a hole already."""

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        """Note that a function changes a variable that it does not make itself."""
        for name in node.names:
            if self._lookup(name) is None:
                self._changed(name, node)

    def _patched(self, node: ast.Attribute) -> None:
        root = root_name(node)
        if self._is_outer(root):
            self._changed(root, node)
            self._spot(f"assignment to {ast.unparse(node)}", node)

    def _is_outer(self, name: str | None) -> bool:
        return name is not None and self._in_function() and self._reference(name) is not None

    def _changed(self, name: str | None, node: ast.AST) -> None:
        if name is not None and self._in_function() and self._lookup(name) is None:
            self.form.changes.setdefault(name, getattr(node, "lineno", 0))

    def _in_function(self) -> bool:
        # What a module does while it is imported is done before anyone asks.
        return any(scope.kind == "function" for scope in self._scopes)

    def _spot(self, what: str, node: ast.AST) -> None:
        self.form.spots.append((what, getattr(node, "lineno", 0)))

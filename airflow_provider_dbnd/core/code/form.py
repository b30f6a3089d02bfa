"""The normal form of a piece of source: what is left when nothing counts that cannot matter.

It is made of the syntax tree, not of bytecode, which is another one in each version of Python. Left
out are comments, layout, docstrings, ``pass`` and the names of local variables; parameters keep
their names, which callers may use, and so do locals whose name stands in a string: ``duckdb`` and
``DataFrame.query`` look variables up by it. Each name from outside is a hole, filled in later by
what the name stands for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.code.scopes import (
    Comprehension,
    Function,
    Imported,
    Scope,
    imports_of,
    parameter_names,
    scope_of,
)
from airflow_provider_dbnd.core.digest import bytes_digest

#: Stands in a form's text for a reference.
HOLE = "\x01"

_WITHOUT_MEANING = frozenset(("ctx", "kind", "type_comment", "simple"))
_SEE_LOCALS = frozenset(("eval", "exec", "locals", "vars"))
_IMPORTERS = frozenset(("import_module", "__import__"))
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
_OWN_DECORATORS = frozenset(
    path.format(kind=kind)
    for kind in ("task", "sensor", "pipeline")
    for path in ("airflow_provider_dbnd.{kind}", "airflow_provider_dbnd.decorators.{kind}.{kind}")
)
_OWN_DECLARATION = re.compile(r"airflow_provider_dbnd\.(core\.parameters\.)?(parameter|output)\b")


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


def form_of(
    nodes: Sequence[ast.AST], imports: Mapping[str, Imported], *, defaults: bool = True
) -> Form:
    """Return the normal form of statements or expressions that stand side by side.

    :param imports: what the module's import statements bind
    :param defaults: whether the default values of *nodes* themselves are part of it
    """
    builder = _Builder(nodes, imports, defaults=defaults)
    for node in nodes:
        builder.visit(node)
    builder.form.shape = bytes_digest("".join(builder.out).encode())
    return builder.form


def default_expressions(node: Function) -> dict[str, ast.expr]:
    """Return the default expressions of a function by parameter."""
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    found: dict[str, ast.expr] = {}
    for arg, value in zip(positional[len(positional) - len(a.defaults) :], a.defaults, strict=True):
        found[arg.arg] = value
    for arg, each in zip(a.kwonlyargs, a.kw_defaults, strict=True):
        if each is not None:
            found[arg.arg] = each
    return found


class _Builder(ast.NodeVisitor):
    def __init__(
        self, roots: Sequence[ast.AST], imports: Mapping[str, Imported], *, defaults: bool
    ) -> None:
        self.form = Form()
        self.out: list[str] = []
        self._imports = imports
        self._scopes: list[Scope] = []
        self._locals = 0
        self._without_defaults = () if defaults else roots
        self._annotation = False
        self._words, self._keep_all = _words(roots)

    # Emission ---------------------------------------------------------------------------------

    def generic_visit(self, node: ast.AST) -> None:
        self.out.append(f"({type(node).__name__}")
        for name in node._fields:
            if name not in _WITHOUT_MEANING:
                self._field(name, getattr(node, name, None))
        self.out.append(")")

    def _field(self, name: str, value: Any) -> None:
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

    # Names ------------------------------------------------------------------------------------

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
            return _imported(scope.imports[name], attributes)
        return None

    def _local(self, name: str) -> None:
        scope = self._lookup(name)
        assert scope is not None
        kept = self._keep_all or scope.kind == "class" or name in scope.kept or name in self._words
        if kept:
            self.out.append(f"name:{name} ")
        else:
            if name not in scope.numbers:
                scope.numbers[name] = self._locals
                self._locals += 1
            self.out.append(f"local:{scope.numbers[name]} ")

    def visit_Name(self, node: ast.Name) -> None:
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
        if node.attr == "__doc__":
            self._spot("a docstring, which does not count,", node)
        if not isinstance(node.ctx, ast.Load):
            self._patched(node)
        if not self._chain(node):
            self._attribute(node.value, node.attr)

    def _attribute(self, value: ast.expr, name: str) -> None:
        self.visit(value)
        self.out.append(f".{name} ")

    def _chain(self, node: ast.expr) -> bool:
        """Emit ``a.b.c`` as one reference if ``a`` is one."""
        attributes: list[str] = []
        root = node
        while taken := _attribute_taken(root, self):
            root, name = taken
            attributes.insert(0, name)
        if not isinstance(root, ast.Name):
            return False
        reference = self._reference(root.id, attributes)
        if reference is None:
            return False
        if attributes == ["modules"] and root.id == "sys":
            self._spot("sys.modules", node)
        self.visit(root) if root.id == "__file__" else self._hole(reference)
        return True

    # Scopes -----------------------------------------------------------------------------------

    def _visit_function(self, node: Function) -> None:
        self.out.append(f"({type(node).__name__}")
        if not isinstance(node, ast.Lambda):
            self.out.append(f" name:{node.name}")
            self._decorators(node)
            if node.returns is not None:
                self.out.append(" returns=")
                self._visit_annotation(node.returns)
        self._parameters(node)
        self._scopes.append(scope_of(node))
        self._field("body", [node.body] if isinstance(node, ast.Lambda) else node.body)
        self._scopes.pop()
        self.out.append(")")

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function

    def _parameters(self, node: Function) -> None:
        a = node.args
        groups = (a.posonlyargs, a.args, [a.vararg], a.kwonlyargs, [a.kwarg])
        for kind, group in zip("/.*=~", groups, strict=True):
            for arg in filter(None, group):
                self.out.append(f" {kind}{arg.arg}")
                if arg.annotation is not None:
                    self.out.append(":")
                    self._visit_annotation(arg.annotation)
        if node not in self._without_defaults:
            for name, default in default_expressions(node).items():
                self.out.append(f" {name}=")
                self.visit(default)

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Emit the decorators; of this package's own, what does not only say how Airflow runs it."""
        for each in node.decorator_list:
            call = each if isinstance(each, ast.Call) else None
            if self._dotted(call.func if call else each) not in _OWN_DECORATORS:
                self.out.append(" @")
                self.visit(each)
                continue
            names = {*parameter_names(node), "result", None}
            for keyword in call.keywords if call else ():
                declares = _OWN_DECLARATION.match(self._dotted(keyword.value))
                if keyword.arg in names or declares:
                    self.out.append(" @")
                    self.visit(keyword)

    def _dotted(self, node: ast.expr) -> str:
        """Return ``package.name`` for an expression that begins with what the module imported."""
        names: list[str] = []
        while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
            if isinstance(node, ast.Attribute):
                names.insert(0, node.attr)
            node = node.func if isinstance(node, ast.Call) else node.value
        if not isinstance(node, ast.Name) or node.id not in self._imports:
            return ""
        imported = self._imports[node.id]
        return ".".join(filter(None, (imported.start, imported.attribute, *names)))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.out.append(f"(ClassDef name:{node.name}")
        for name in ("decorator_list", "bases", "keywords"):
            self._field(name, getattr(node, name))
        self._scopes.append(scope_of(node))
        self._field("body", node.body)
        self._scopes.pop()
        self.out.append(")")

    def _visit_comprehension(self, node: Comprehension) -> None:
        self.out.append(f"({type(node).__name__} ")
        scope = scope_of(node)
        for index, each in enumerate(node.generators):
            if index == 0:
                # The first iterable alone is evaluated outside.
                self.visit(each.iter)
                self._scopes.append(scope)
            else:
                self.visit(each.iter)
            self.out.append(" async for " if each.is_async else " for ")
            self.visit(each.target)
            self._field("ifs", each.ifs)
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            self.visit(node.elt)
        self._scopes.pop()
        self.out.append(")")

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    # Statements that hold names as text ---------------------------------------------------------

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if not self._scopes:
            self.out.append("(import")
            for imported in imports_of(node).values():
                self.out.append(f" {imported.start}:{imported.attribute}")
            self.out.append(")")
            return
        for name, imported in imports_of(node).items():
            self.out.append("(import ")
            if imported.attribute is not None or self._reference(name) is None:
                self._hole(_imported(imported, ()))
            else:
                self.out.append(" ".join(imported.modules))
            if self._reference(name) is None:
                self._local(name)
            self.out.append(")")

    visit_Import = visit_ImportFrom = _visit_import

    def _visit_binding(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar) -> None:
        self._visit_named(node, "name", node.name)

    visit_ExceptHandler = visit_MatchAs = visit_MatchStar = _visit_binding

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._visit_named(node, "rest", node.rest)

    def _visit_named(self, node: ast.AST, key: str, name: str | None) -> None:
        self.out.append(f"({type(node).__name__}")
        for each in node._fields:
            if each != key:
                self._field(each, getattr(node, each, None))
        if name is not None:
            self.out.append(f" {key}=")
            self.visit(ast.Name(name, ast.Store(), lineno=getattr(node, "lineno", 0)))
        self.out.append(")")

    def visit_Global(self, node: ast.Global) -> None:
        # Every use of the names is a hole already.
        return

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        # A function by itself does not show that its names are another's.
        for name in node.names:
            if self._lookup(name) is None:
                self._changed(name, node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not isinstance(node.ctx, ast.Load):
            self._changed(_root_name(node), node)
        if not self._annotation:
            self.generic_visit(node)
            return
        name = node.value.attr if isinstance(node.value, ast.Attribute) else _root_name(node.value)
        self.out.append("(Subscript ")
        self.visit(node.value)
        if name in ("Literal", "Annotated"):
            first, *rest = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            self._visit_annotation(first) if name == "Annotated" else rest.insert(0, first)
            self._annotation = False
            for each in rest:
                self.visit(each)
            self._annotation = True
        else:
            self.visit(node.slice)
        self.out.append(")")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.out.append("(AnnAssign ")
        self.visit(node.target)
        self._visit_annotation(node.annotation)
        self._field("value", node.value)
        self.out.append(")")

    def _visit_annotation(self, node: ast.expr) -> None:
        before, self._annotation = self._annotation, True
        self.visit(node)
        self._annotation = before

    def visit_Constant(self, node: ast.Constant) -> None:
        if self._annotation and isinstance(node.value, str):
            try:
                quoted = ast.parse(node.value.strip(), mode="eval").body
            except SyntaxError:
                quoted = None
            if quoted is not None and not isinstance(quoted, ast.Constant):
                self.visit(ast.fix_missing_locations(ast.copy_location(quoted, node)))
                return
        self._text(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Versions of Python cut the text between the fields in different ways.
        text = ""
        self.out.append("(JoinedStr ")
        for each in node.values:
            if isinstance(each, ast.Constant):
                text += str(each.value)
                continue
            if text:
                self._text(text)
            text = ""
            self.visit(each)
        if text:
            self._text(text)
        self.out.append(")")

    # What cannot be seen ------------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:
        if _attribute_taken(node, self):
            # getattr(x, "name") with nothing computed is x.name.
            if not self._chain(node):
                self._attribute(node.args[0], node.args[1].value)  # type: ignore[attr-defined]
            return
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name and self._lookup(name) is None:
            self._builtin_called(name, node)
        last = node.func.attr if isinstance(node.func, ast.Attribute) else name
        if last in _IMPORTERS:
            self._module_imported(last, node)
        if isinstance(node.func, ast.Attribute) and last in _CHANGERS:
            self._changed(_root_name(node.func), node)
        self.generic_visit(node)

    def _builtin_called(self, name: str, node: ast.Call) -> None:
        if name in ("getattr", "setattr", "delattr") and len(node.args) > 1:
            outer = self._is_outer(_root_name(node.args[0]))
            attribute = node.args[1]
            if isinstance(attribute, ast.Constant) and isinstance(attribute.value, str):
                taken = ast.Attribute(node.args[0], attribute.value, ast.Load())
                if name == "getattr":
                    self._chain(taken)
                elif outer:
                    self._patched(ast.copy_location(taken, node))
            elif name == "getattr" or outer:
                self._spot(f"{name} with a computed name", node)
        elif name in ("eval", "exec"):
            self._spot(f"{name}()", node)
        elif name == "globals" or (name == "vars" and not node.args and not self._scopes):
            self._spot("globals()", node)

    def _module_imported(self, name: str, node: ast.Call) -> None:
        module = node.args[0] if node.args else None
        if isinstance(module, ast.Constant) and not str(module.value).startswith("."):
            text = str(module.value)
            self._hole(_imported(Imported((text,), text), ()))
        else:
            self._spot(f"{name} with a computed name", node)

    def _patched(self, node: ast.Attribute) -> None:
        root = _root_name(node)
        if self._is_outer(root):
            self._changed(root, node)
            self._spot(f"assignment to {ast.unparse(node)}", node)

    def _is_outer(self, name: str | None) -> bool:
        return name is not None and self._in_function() and self._reference(name) is not None

    def _changed(self, name: str | None, node: ast.AST) -> None:
        if name is not None and self._in_function() and self._lookup(name) is None:
            self.form.changes.setdefault(name, getattr(node, "lineno", 0))

    def _in_function(self) -> bool:
        return any(scope.kind == "function" for scope in self._scopes)

    def _spot(self, what: str, node: ast.AST) -> None:
        self.form.spots.append((what, getattr(node, "lineno", 0)))


def _imported(imported: Imported, attributes: Sequence[str]) -> Reference:
    own = () if imported.attribute is None else (imported.attribute,)
    return Reference(imported.start, imported, (*own, *attributes))


def _attribute_taken(node: ast.expr, builder: _Builder) -> tuple[ast.expr, str] | None:
    """Return the object and the name for ``x.name`` and ``getattr(x, "name")``."""
    if isinstance(node, ast.Attribute):
        return node.value, node.attr
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and builder._lookup("getattr") is None
        and len(node.args) == 2
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    ):
        return node.args[0], node.args[1].value
    return None


def _root_name(node: ast.expr) -> str | None:
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

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
from collections.abc import Mapping, Sequence

from airflow_provider_dbnd.core.code.blind import BlindSpots
from airflow_provider_dbnd.core.code.emission import Form, imported_reference, root_name
from airflow_provider_dbnd.core.code.scopes import (
    Comprehension,
    Function,
    Imported,
    imports_of,
    parameter_names,
    scope_of,
)
from airflow_provider_dbnd.core.digest import bytes_digest

_OWN_DECORATORS = frozenset(
    path.format(kind=kind)
    for kind in ("task", "sensor", "pipeline")
    for path in ("airflow_provider_dbnd.{kind}", "airflow_provider_dbnd.decorators.{kind}.{kind}")
)
_OWN_DECLARATION = re.compile(r"airflow_provider_dbnd\.(core\.parameters\.)?(parameter|output)\b")


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


class _Builder(BlindSpots):
    def __init__(
        self, roots: Sequence[ast.AST], imports: Mapping[str, Imported], *, defaults: bool
    ) -> None:
        super().__init__(roots, imports)
        self._without_defaults = () if defaults else roots
        self._annotation = False

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
        variadic = ("*", [a.vararg] if a.vararg else []), ("~", [a.kwarg] if a.kwarg else [])
        groups = (("/", a.posonlyargs), (".", a.args), ("=", a.kwonlyargs), *variadic)
        for kind, group in groups:
            for arg in group:
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
        return ".".join((self._imports[node.id].full_name, *names))

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
                self._hole(imported_reference(imported))
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

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if not self._annotation:
            super().visit_Subscript(node)
            return
        name = node.value.attr if isinstance(node.value, ast.Attribute) else root_name(node.value)
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

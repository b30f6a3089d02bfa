"""Which names a function, a class or a comprehension binds, as Python's compiler decides it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import statement binds a name to.

    ``modules`` are loaded by it, relative ones with their dots; the name is ``attribute`` of
    ``start``, or ``start`` itself.
    """

    modules: tuple[str, ...]
    start: str
    attribute: str | None = None

    @property
    def full_name(self) -> str:
        """What the name stands for: a module, or a member of one."""
        return self.start if self.attribute is None else f"{self.start}.{self.attribute}"

    def merged(self, other: Imported) -> Imported | None:
        """Return both as one, as ``import a.b`` and ``import a.c`` bind ``a`` together."""
        if (self.start, self.attribute) != (other.start, other.attribute):
            return None
        return replace(self, modules=tuple(dict.fromkeys(self.modules + other.modules)))


@dataclass(slots=True)
class Scope:
    """The names bound in one scope.

    ``kept`` are those that code outside can see: parameters and the names of functions and classes.
    ``imports`` are those that only an import binds. ``numbers`` are what the others are called.
    """

    kind: Literal["function", "class"]
    bound: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    imports: dict[str, Imported] = field(default_factory=dict)
    global_: set[str] = field(default_factory=set)
    nonlocal_: set[str] = field(default_factory=set)
    stars: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)


def scope_of(node: Function | ast.ClassDef | Comprehension) -> Scope:
    """Return the scope that *node* opens."""
    if isinstance(node, ast.ClassDef):
        return _Binder(Scope("class")).over(node.body)
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return _Binder(Scope("function")).over(each.target for each in node.generators)
    names = parameter_names(node)
    scope = Scope("function", bound=set(names), kept=set(names))
    body = [node.body] if isinstance(node, ast.Lambda) else node.body
    return _Binder(scope).over(body)


def statement_scope(statement: ast.stmt) -> Scope:
    """Return what one statement of a module binds there."""
    return _Binder(Scope("class")).over([statement])


def parameter_names(node: Function) -> list[str]:
    """Return the names of a function's parameters."""
    a = node.args
    variadic = [arg for arg in (a.vararg, a.kwarg) if arg is not None]
    return [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, *variadic)]


def imports_of(node: ast.Import | ast.ImportFrom) -> dict[str, Imported]:
    """Return what an import statement binds, by name."""
    found: dict[str, Imported] = {}
    if isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            if alias.name != "*":
                found[alias.asname or alias.name] = Imported((module,), module, alias.name)
        return found
    for alias in node.names:
        top = alias.name.partition(".")[0]
        imported = Imported((alias.name,), alias.name if alias.asname else top)
        name = alias.asname or top
        found[name] = (found[name].merged(imported) if name in found else None) or imported
    return found


class _Binder(ast.NodeVisitor):
    """Collects what statements bind in their own scope, without entering the scopes in them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self._variables = set(scope.bound)
        self._in_comprehension = 0

    def over(self, nodes: Iterable[ast.AST]) -> Scope:
        for node in nodes:
            self.visit(node)
        for name in self._variables:
            self.scope.imports.pop(name, None)
        return self.scope

    def _bind(self, name: str | None, *, kept: bool = False) -> None:
        if name is None:
            return
        self.scope.bound.add(name)
        self._variables.add(name)
        if kept:
            self.scope.kept.add(name)

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load) and not self._in_comprehension:
            self._bind(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        # The one thing that leaves a comprehension.
        self._bind(node.target.id)
        self.visit(node.value)

    def _visit_comprehension(self, node: ast.AST) -> None:
        self._in_comprehension += 1
        self.generic_visit(node)
        self._in_comprehension -= 1

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def _visit_definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._bind(node.name, kept=True)
        for each in node.decorator_list:
            self.visit(each)
        self._visit_defaults(node)

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_definition

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_defaults(node)

    def _visit_defaults(self, node: Function) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self.visit(default)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._bind(node.name, kept=True)
        for each in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(each)

    def _visit_import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            self.scope.stars.append("." * node.level + (node.module or ""))
        for name, imported in imports_of(node).items():
            before = self.scope.imports.get(name)
            both = before.merged(imported) if before else imported
            if both is None:
                self._bind(name)
            else:
                self.scope.bound.add(name)
                self.scope.imports[name] = both

    visit_Import = visit_ImportFrom = _visit_import

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    def _visit_capture(self, node: ast.MatchAs | ast.MatchStar) -> None:
        self._bind(node.name)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _visit_capture

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self._bind(node.rest)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self.scope.global_.update(node.names)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self.scope.nonlocal_.update(node.names)

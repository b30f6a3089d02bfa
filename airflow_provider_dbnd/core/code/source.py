"""Source files, parsed once a version, and what is found in them."""

from __future__ import annotations

import ast
import importlib.machinery
import inspect
import os
import types
import zipimport
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from airflow_provider_dbnd.core.code.emission import Form
from airflow_provider_dbnd.core.code.form import default_expressions, form_of
from airflow_provider_dbnd.core.code.scopes import Function, Imported, statement_scope
from airflow_provider_dbnd.exceptions import FingerprintError

_LOADERS = (
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    zipimport.zipimporter,
)
#: types.coroutine() makes a function one of these in place.
_SET_BY_DECORATOR = inspect.CO_ITERABLE_COROUTINE
#: What these change at import is not what a task computes.
_WITHOUT_EFFECT = frozenset(("airflow", "airflow_provider_dbnd", "logging", "sys", "warnings"))


class Source:
    """One version of a source file."""

    def __init__(self, path: str, text: bytes) -> None:
        self.path = path
        self.tree = _parsed(path, text)
        self._forms: dict[Any, Form] = {}
        self._verified: dict[int, types.CodeType] = {}

    def functions(self, code: types.CodeType) -> Sequence[tuple[str, Function]]:
        """Return the definitions a code object can come from: several lambdas share a line."""
        return self._functions.get((code.co_name, code.co_firstlineno), ())

    def classes(self, qualname: str) -> Sequence[ast.ClassDef]:
        """Return the definitions of a class."""
        return self._classes.get(qualname, ())

    def statements(self, name: str) -> Sequence[ast.stmt]:
        """Return the statements of the module that make or fill the global *name*."""
        return [*self._bindings.get(name, ()), *self._fillings.get(name, ())]

    def is_defined(self, name: str) -> bool:
        """Tell whether ``def`` or ``class`` alone binds the global *name*."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return all(isinstance(each, kinds) for each in self._bindings.get(name, ()))

    def patches(self, name: str) -> Sequence[ast.stmt]:
        """Return the statements of the module that set attributes of the global *name*."""
        return [s for s in self._fillings.get(name, ()) if not isinstance(s, ast.Expr)]

    def form(self, key: Any, nodes: Sequence[ast.AST], *, defaults: bool = True) -> Form:
        """Return the normal form of *nodes*, made once; *key* names them."""
        found = self._forms.get(key)
        if found is None:
            found = self._forms[key] = form_of(nodes, self.imports, defaults=defaults)
        return found

    def defaults(self, key: Any, node: Function) -> Mapping[str, Form]:
        """Return the normal forms of a function's default expressions by parameter."""
        return {
            name: self.form((*key, name), [value])
            for name, value in default_expressions(node).items()
        }

    def verify(self, code: types.CodeType, loader: object) -> bool:
        """Tell whether *code* is what this version of the file compiles to."""
        if self._verified.get(id(code)) is code:
            return True
        same = any(_same_code(code, each) for each in self._compiled.get(_place(code), ()))
        if same:
            self._verified[id(code)] = code
        elif type(loader) in _LOADERS or not self.functions(code):
            raise FingerprintError(
                f"{self.path} was changed after {code.co_name}() was loaded from it, so what runs "
                "is not what the file says. Start a new process, or reload the module."
            )
        return same

    @cached_property
    def imports(self) -> Mapping[str, Imported]:
        """What the import statements of the module bind, where nothing else binds it."""
        found: dict[str, Imported] = {}
        ambiguous: set[str] = set()
        for scope in self._scopes.values():
            for name in scope.bound:
                imported = scope.imports.get(name)
                if imported is not None and name in found:
                    imported = found[name].merged(imported)
                if imported is None:
                    ambiguous.add(name)
                else:
                    found[name] = imported
        return {name: each for name, each in found.items() if name not in ambiguous}

    @property
    def whole(self) -> Form:
        """The normal form of the whole file."""
        return self.form("module", [self.tree])

    @cached_property
    def stars(self) -> Sequence[str]:
        """The modules imported with a star, as written."""
        return [star for scope in self._scopes.values() for star in scope.stars]

    @cached_property
    def changes(self) -> Mapping[str, int]:
        """The globals whose value functions of the file change, with a line."""
        return self.whole.changes

    @cached_property
    def settings(self) -> Sequence[tuple[str, ast.stmt]]:
        """The statements that call or change what the module has imported, with its name."""
        found = []
        for statement in self.tree.body:
            name = _touched(statement)
            imported = self.imports.get(name) if name else None
            if imported and imported.start.partition(".")[0] not in _WITHOUT_EFFECT:
                found.append((str(name), statement))
        return found

    @cached_property
    def _scopes(self) -> Mapping[ast.stmt, Any]:
        return {statement: statement_scope(statement) for statement in self.tree.body}

    @cached_property
    def _bindings(self) -> Mapping[str, list[ast.stmt]]:
        found: dict[str, list[ast.stmt]] = {}
        for statement, scope in self._scopes.items():
            for name in scope.bound:
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def _fillings(self) -> Mapping[str, list[ast.stmt]]:
        found: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            name = _touched(statement)
            if name is not None and not _is_plain_call(statement):
                found.setdefault(name, []).append(statement)
        return found

    @cached_property
    def _functions(self) -> Mapping[tuple[str, int], list[tuple[str, Function]]]:
        found: dict[tuple[str, int], list[tuple[str, Function]]] = {}
        for qualname, node in self._definitions:
            if isinstance(node, ast.Lambda):
                found.setdefault(("<lambda>", node.lineno), []).append((qualname, node))
            elif not isinstance(node, ast.ClassDef):
                line = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                found.setdefault((node.name, line), []).append((qualname, node))
        return found

    @cached_property
    def _classes(self) -> Mapping[str, list[ast.ClassDef]]:
        found: dict[str, list[ast.ClassDef]] = {}
        for qualname, node in self._definitions:
            if isinstance(node, ast.ClassDef):
                found.setdefault(qualname, []).append(node)
        return found

    @cached_property
    def _definitions(self) -> Sequence[tuple[str, Function | ast.ClassDef]]:
        return list(_definitions(self.tree, ""))

    @cached_property
    def _compiled(self) -> Mapping[tuple[str, int], list[types.CodeType]]:
        found: dict[tuple[str, int], list[types.CodeType]] = {}
        rest = [compile(self.tree, self.path, "exec", dont_inherit=True)]
        while rest:
            code = rest.pop()
            found.setdefault(_place(code), []).append(code)
            rest.extend(each for each in code.co_consts if isinstance(each, types.CodeType))
        return found


_CACHE: dict[str, tuple[tuple[int, int], Source]] = {}


def source_of(file: str, namespace: Mapping[str, Any]) -> Source:
    """Return the source file *file* of a module as it is now.

    :param namespace: the module's names, for one that is loaded from a zip file
    """
    path = os.path.abspath(file)
    stamp = _stamp(path)
    cached = _CACHE.get(path)
    if cached is not None and cached[0] == stamp:
        return cached[1]
    source = Source(path, _text(path, namespace))
    _CACHE[path] = stamp, source
    return source


def _stamp(path: str) -> tuple[int, int]:
    while True:
        try:
            found = os.stat(path)
        except NotADirectoryError:
            path = os.path.dirname(path)
            continue
        except OSError as exc:
            raise _no_source(path) from exc
        return found.st_mtime_ns, found.st_size


def _text(path: str, namespace: Mapping[str, Any]) -> bytes:
    if os.path.isfile(path):
        with open(path, "rb") as file:
            return file.read()
    get_source = getattr(namespace.get("__loader__"), "get_source", None)
    text = get_source(namespace["__name__"]) if get_source else None
    if text is None:
        raise _no_source(path)
    return str(text).encode()


def _no_source(path: str) -> FingerprintError:
    return FingerprintError(
        f"{path} cannot be read: code without its source file cannot be fingerprinted."
    )


def _parsed(path: str, text: bytes) -> ast.Module:
    try:
        return ast.parse(text, path)
    except (SyntaxError, ValueError) as exc:
        raise FingerprintError(f"{path} is not Python source (any more): {exc}.") from exc


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            name = "<lambda>" if isinstance(child, ast.Lambda) else child.name
            yield prefix + name, child
            yield from _definitions(child, f"{prefix}{name}.<locals>.")
        else:
            yield from _definitions(child, prefix)


def _touched(statement: ast.stmt) -> str | None:
    """Return the name on which a statement calls a method, or sets an attribute or an element."""
    node: ast.expr | None = None
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        node = statement.value.func
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        node = statement.targets[0]
    elif isinstance(statement, ast.AugAssign | ast.AnnAssign):
        node = statement.target
    if not isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(statement, ast.Expr):
        return None
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_plain_call(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name)


def _place(code: types.CodeType) -> tuple[str, int]:
    return code.co_name, code.co_firstlineno


def _same_code(one: types.CodeType, other: types.CodeType) -> bool:
    # Equality of code objects takes in columns, which do not matter, and in some versions what
    # running it left in it.
    return (
        one.co_code == other.co_code
        and one.co_names == other.co_names
        and one.co_varnames == other.co_varnames
        and one.co_freevars == other.co_freevars
        and one.co_cellvars == other.co_cellvars
        and (one.co_flags ^ other.co_flags) & ~_SET_BY_DECORATOR == 0
        and len(one.co_consts) == len(other.co_consts)
        and all(map(_same_constant, one.co_consts, other.co_consts))
    )


def _same_constant(one: object, other: object) -> bool:
    if isinstance(one, types.CodeType) and isinstance(other, types.CodeType):
        return _same_code(one, other)
    if isinstance(one, frozenset) and isinstance(other, frozenset):
        return one == other
    return type(one) is type(other) and ascii(one) == ascii(other)

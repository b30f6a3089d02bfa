"""What a function reaches: from name to name through the project, each thing once."""

from __future__ import annotations

import builtins
import importlib.machinery
import sys
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.code.emission import Form, Reference
from airflow_provider_dbnd.core.code.module import Module, imported_module
from airflow_provider_dbnd.core.code.objects import (
    cells_of,
    class_of,
    defaults_of,
    functions_in,
    held_by,
    is_class,
    is_module,
    is_wrapper,
    top_package,
    vars_of,
)
from airflow_provider_dbnd.core.code.project import Project
from airflow_provider_dbnd.core.code.units import Units
from airflow_provider_dbnd.core.code.values import NotPlain, ValueEncoder, first_seen
from airflow_provider_dbnd.core.parameters import MISSING
from airflow_provider_dbnd.exceptions import FingerprintError

_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
)
#: Names of a module that say where it is, not what it does.
_PLACE = frozenset(
    f"__{name}__"
    for name in ("builtins", "cached", "file", "loader", "name", "package", "path", "spec")
)
_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)


@dataclass(frozen=True)
class _View:
    """From where a name is looked up; ``label`` is for people.

    ``cells`` are variables of enclosing functions, ``changed`` those that the function changes.
    """

    module: Module
    label: str
    cells: Mapping[str, types.CellType] = field(default_factory=dict)
    changed: Collection[str] = ()


class Reach:
    """Everything a function reaches in the project, and the ``spots`` where that cannot be told."""

    def __init__(self, project: Project) -> None:
        self.units = Units()
        self.spots: dict[str, None] = {}
        self._project = project
        self._modules: dict[tuple[int, str], Module] = {}
        self._on_the_way: set[tuple[str, str]] = set()

    def follow(self, function: Callable[..., Any]) -> None:
        """Reach everything from *function*."""
        self._refer(function)
        self.units.complete()

    def _spot(self, text: str) -> None:
        self.spots.setdefault(text)

    def _form(self, form: Form, view: _View) -> str:
        """Return the text of a form with its holes filled in."""
        for what, line in form.spots:
            self._spot(f"{what} in {view.label}, line {line}")
        known: dict[Reference, str] = {}
        for reference in form.references:
            if reference not in known:
                known[reference] = self._resolve(reference, view)
        return " ".join([form.shape, *(known[each] for each in form.references)])

    def _resolve(self, reference: Reference, view: _View) -> str:
        name, attributes = reference.name, reference.attributes
        if reference.imported is not None:
            home = imported_module(self._project, view.module, reference.imported)
            if isinstance(home, str):
                return _external(home, attributes)
            return self._member(home, attributes)
        if name in view.cells:
            return self._cell(name, view) + _suffix(attributes)
        if name in view.module.names:
            return self._global(view.module, name, attributes)
        home = "builtins" if name in vars(builtins) else "nothing"
        return _external(home, (name, *attributes))

    def _member(
        self, module: types.ModuleType, attributes: tuple[str, ...], written: str | None = None
    ) -> str:
        """Return the reference to ``module.a.b``; *written* is how an outer module was imported."""
        ours = self._module(vars(module))
        if ours is None and not self._is_namespace(module):
            return _external(written or module.__name__, attributes)
        if not attributes:
            return self._whole(module, ours)
        name, *rest = attributes
        if ours is not None and name in ours.names:
            return self._global(ours, name, tuple(rest))
        inner = sys.modules.get(f"{module.__name__}.{name}")
        if inner is not None:
            return self._member(inner, tuple(rest))
        if ours is not None and "__getattr__" in ours.names:
            self._spot(f"{ours.label}.{name}, made by {ours.label}.__getattr__")
            return self._global(ours, "__getattr__", ()) + _suffix(attributes)
        return _external("nothing", attributes)

    def _global(self, module: Module, name: str, attributes: tuple[str, ...]) -> str:
        if name in _PLACE:
            return _external("module", (name, *attributes))
        value = module.names[name]
        imported = module.source.imports.get(name)
        if is_module(value):
            return self._member(value, attributes, imported.full_name if imported else None)
        origins: list[tuple[str, str]] = []
        if imported is not None and imported.attribute is not None:
            origins = [(module.absolute(imported.start), imported.attribute)]
        elif imported is None and not module.source.statements(name):
            origins = [(module.absolute(star), name) for star in module.source.stars]
        for home, original in origins:
            found = self._at_home(home, original, value, attributes)
            if found is not None:
                return found
        return self._value(value, module, name) + _suffix(attributes)

    def _at_home(self, home: str, name: str, value: Any, attributes: tuple[str, ...]) -> str | None:
        """Return the reference to an imported value where it was imported from.

        There is none if it is not that value any more.
        """
        names = vars_of(sys.modules.get(home))
        module = self._module(names)
        if module is None:
            # A module may make its names when they are asked for, and keep none.
            if not names or names.get(name, value) is not value or self._is_ours(value):
                return None
            return _external(home, (name, *attributes))
        # Modules may import a name from one another in a circle.
        if names.get(name, MISSING) is not value or (home, name) in self._on_the_way:
            return None
        self._on_the_way.add((home, name))
        found = self._global(module, name, attributes)
        self._on_the_way.discard((home, name))
        return found

    def _value(self, value: Any, module: Module, name: str) -> str:
        if self._is_ours(value) or (is_wrapper(value) and module.source.is_defined(name)):
            return self._refer(value)
        return self.units.number(
            ("global", id(module.names), name),
            f"{module.label}.{name}",
            value,
            lambda label: self._content(value, module, name, label),
        )

    def _content(self, value: Any, module: Module, name: str, label: str) -> str:
        """Return the text of what a global holds: its value, else the statements that make it."""
        line = module.source.changes.get(name)
        if line is not None:
            value = first_seen(module.names, name, module.source, value)
            self._spot(f"{label}, changed by code in line {line}: what it held at first counts")
        try:
            text = self._encoded(value, module, label)
        except NotPlain:
            return f"{self._type(value)} {self._statements(module, name, label)}"
        made = is_wrapper(value) or type(value) is types.FunctionType
        if made and not module.source.is_defined(name):
            text += self._statements(module, name, label)
        return text

    def _statements(self, module: Module, name: str, label: str) -> str:
        nodes = module.source.statements(name)
        if not nodes:
            self._spot(f"{label}, which no statement of {module.label} makes")
        return self._form(module.source.form(("statements", name), nodes), _View(module, label))

    def _cell(self, name: str, view: _View) -> str:
        """Return the reference to what a variable of an enclosing function holds."""
        cell = view.cells[name]
        try:
            value = cell.cell_contents
        except ValueError:
            return _external("nothing", (name,))
        if is_module(value) or self._is_ours(value):
            return self._refer(value)

        def text(label: str) -> str:
            held = first_seen(cell, name, None, value) if name in view.changed else value
            try:
                return self._encoded(held, view.module, label)
            except NotPlain:
                self._spot(f"{label}, of which only the type counts ({type(value).__qualname__})")
                return self._type(value)

        return self.units.number(("cell", id(cell)), f"{view.label}: {name}", cell, text)

    def _encoded(self, value: Any, module: Module, label: str, *, mutable: bool = True) -> str:
        encoder = ValueEncoder(self._refer, root=module.root, mutable=mutable)
        text = encoder.encode(value)
        if encoder.met_path:
            self._spot(f"{label}, a path in the project: files count only when declared")
        return text

    def _type(self, value: Any) -> str:
        return self._refer(type(value))

    def _refer(self, value: Any) -> str:
        """Return the reference to a function, class, module or wrapper; raise NotPlain for others."""
        kind = type(value)
        if kind is types.FunctionType:
            return self._function(value)
        if is_class(value):
            return self._class(value)
        if is_module(value):
            return self._member(value, ())
        if issubclass(kind, _BUILTIN):
            owner = getattr(value, "__self__", None)
            if owner is not None and not is_module(owner) and not is_class(owner):
                raise NotPlain
            return _external("builtins", (value.__qualname__,))
        if is_wrapper(value):
            return f"wrapper({self._refer(kind)},{self._refer(vars_of(value)['__wrapped__'])})"
        raise NotPlain

    def _module(self, names: Mapping[str, Any], file: object = None) -> Module | None:
        """Return the project's module with these names, None for one from outside."""
        file = file or names.get("__file__")
        if not isinstance(file, str) or not self._project.has(file):
            return None
        if file.endswith(_COMPILED):
            self._spot(f"{names.get('__name__')}, which is compiled")
            return None
        key = (id(names), file)
        module = self._modules.get(key)
        if module is None:
            module = self._modules[key] = Module(names, file)
            self._settings(module)
        return module

    def _settings(self, module: Module) -> None:
        """Reach what a module sets up elsewhere when it is imported."""
        nodes = [
            node
            for name, node in module.source.settings
            for value in [module.names.get(name)]
            # What is called on an object stays with the object; a pipeline makes its DAG.
            if is_module(value) or is_class(value) or _is_plain_function(value)
        ]
        if nodes:
            form = module.source.form(("settings", *(node.lineno for node in nodes)), nodes)
            self.units.number(
                ("settings", id(module.names)),
                f"{module.label} (at import)",
                module,
                lambda label: self._form(form, _View(module, label)),
            )

    def _is_namespace(self, module: types.ModuleType) -> bool:
        names = vars(module)
        return names.get("__file__") is None and any(
            map(self._project.has, names.get("__path__") or ())
        )

    def _whole(self, module: types.ModuleType, ours: Module | None) -> str:
        """Return the reference to all of a module: something may be looked up in it by name."""
        if ours is None:
            return _external("namespace", (module.__name__,))
        return self.units.number(
            ("module", id(ours.names)),
            f"module {ours.label}",
            module,
            lambda label: self._form(ours.source.whole, _View(ours, label)),
        )

    def _is_ours(self, value: Any) -> bool:
        """Tell whether a value is a function or a class of the project."""
        if type(value) is types.FunctionType:
            return self._project.has(value.__code__.co_filename)
        return is_class(value) and self._module_of_class(value) is not None

    def _function(self, function: types.FunctionType) -> str:
        code = function.__code__
        module = self._module(function.__globals__, code.co_filename)
        if module is None:
            self._refuse_generated(function)
            return self._outer_function(function)
        if not module.source.verify(code, module.names.get("__loader__")):
            loader = type(module.names.get("__loader__")).__name__
            self._spot(f"{module.label}, which {loader} changes while it loads it")
        qualname, _ = module.source.functions(code)[0]
        return self.units.number(
            ("function", id(function)),
            f"{module.label}.{qualname.replace('.<locals>', '')}",
            function,
            lambda label: self._function_text(function, module, label),
        )

    def _function_text(self, function: types.FunctionType, module: Module, label: str) -> str:
        source, cells = module.source, cells_of(function)
        texts = []
        for index, (qualname, node) in enumerate(source.functions(function.__code__)):
            key = ("function", qualname, node.lineno, index)
            form = source.form(key, [node], defaults=False)
            changed = sorted(form.changes.keys() & cells.keys())
            for name in changed:
                self._spot(f"{label}: {name}, changed by {label}: what it held at first counts")
            view = _View(module, label, cells, changed)
            texts.append(self._form(form, view))
            texts += self._defaults(function, view, source.defaults(key, node))
        if "." not in function.__qualname__:
            texts.append(self._patches(module, function.__name__, label))
        elif (owner := class_of(function)) is not None:
            texts.append(self._refer(owner))
        return "\n".join(texts)

    def _defaults(
        self, function: types.FunctionType, view: _View, forms: Mapping[str, Form]
    ) -> Iterator[str]:
        """Yield the default values; of one that may change while it is used, the expression."""
        for name, value in defaults_of(function).items():
            try:
                text = self._encoded(value, view.module, view.label, mutable=False)
            except NotPlain:
                text = self._form(forms[name], view) if name in forms else self._type(value)
            yield f"{name}={text}"

    def _outer_function(self, function: types.FunctionType) -> str:
        """Return the text of a function from outside: what it holds of the project."""
        held = [self._refer(each) for each in self._held_inside(function, set())]
        name = "" if held else f"{top_package(function)}:{function.__qualname__}"
        return f"function {name}({','.join(held)})"

    def _held_inside(self, function: types.FunctionType, seen: set[int]) -> Iterator[Any]:
        seen.add(id(function))
        for each in held_by(function):
            if id(each) in seen:
                continue
            seen.add(id(each))
            if self._is_ours(each):
                yield each
            elif type(each) is types.FunctionType:
                yield from self._held_inside(each, seen)
            elif is_wrapper(each):
                yield from self._held_inside(vars_of(each)["__wrapped__"], seen)

    def _refuse_generated(self, function: types.FunctionType) -> None:
        names, file = function.__globals__, function.__code__.co_filename
        typed = names.get("__name__") == "__main__" and "__file__" not in names
        if file.startswith("<") and (typed or self._project.has(names.get("__file__"))):
            raise FingerprintError(
                f"{function.__qualname__}() was typed into an interpreter or made by exec(): "
                f"expected a function from a file, got one from {file}. Code without a source file "
                "cannot be fingerprinted; write it to a module."
            )

    def _class(self, cls: type) -> str:
        module = self._module_of_class(cls)
        if module is None:
            return f"class {top_package(cls)}:{cls.__qualname__}"
        return self.units.number(
            ("class", id(cls)),
            f"{module.label}.{cls.__qualname__.replace('.<locals>', '')}",
            cls,
            lambda label: self._class_text(cls, module, label),
        )

    def _class_text(self, cls: type, module: Module, label: str) -> str:
        source = module.source
        nodes = source.classes(cls.__qualname__)
        if not nodes:
            return self._statements(module, cls.__name__, label)
        written = {id(each) for node in nodes for each in node.body}
        cells: dict[str, types.CellType] = {}
        added = []
        for name, member in vars(cls).items():
            for method in functions_in(member):
                code = method.__code__
                if any(id(node) in written for _, node in source.functions(code)):
                    source.verify(code, module.names.get("__loader__"))
                    cells |= cells_of(method)
                elif self._project.has(code.co_filename):
                    added.append(f"{name}={self._refer(method)}")
        cells.pop("__class__", None)
        form = source.form(("class", cls.__qualname__), nodes)
        texts = [self._form(form, _View(module, label, cells)), *added]
        return "\n".join([*texts, self._patches(module, cls.__name__, label)])

    def _module_of_class(self, cls: type) -> Module | None:
        module = sys.modules.get(cls.__module__)
        if module is not None and not self._project.has(vars_of(module).get("__file__")):
            return None
        # Another module may have been loaded by the same name since.
        for value in vars(cls).values():
            for method in functions_in(value):
                if method.__module__ == cls.__module__:
                    return self._module(method.__globals__)
        return self._module(vars_of(module))

    def _patches(self, module: Module, name: str, label: str) -> str:
        """Return the text of the statements that set attributes of a function or class."""
        nodes = module.source.patches(name)
        form = module.source.form(("patches", name), nodes) if nodes else None
        return self._form(form, _View(module, label)) if form else ""


def _is_plain_function(value: Any) -> bool:
    kinds = (types.FunctionType, types.BuiltinFunctionType)
    return type(value) in kinds and not is_wrapper(value)


def _external(home: str, names: Iterable[str]) -> str:
    return f"<{'.'.join((home, *names))}>"


def _suffix(attributes: Iterable[str]) -> str:
    return "".join(f".{each}" for each in attributes)

"""What a function reaches: from name to name through the project, each thing once."""

from __future__ import annotations

import builtins
import importlib.machinery
import re
import sys
import types
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_dbnd.core.code.form import Form, Reference
from airflow_provider_dbnd.core.code.module import Module, imported_module, submodule
from airflow_provider_dbnd.core.code.project import Project
from airflow_provider_dbnd.core.code.source import Source
from airflow_provider_dbnd.core.code.values import NotPlain, ValueEncoder, snapshot, vars_of
from airflow_provider_dbnd.core.digest import bytes_digest, digest_of
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
    "__builtins__ __cached__ __file__ __loader__ __name__ __package__ __path__ __spec__".split()
)
_COMPILED = tuple(importlib.machinery.EXTENSION_SUFFIXES)
_UNIT = re.compile("\x02(\\d+)\x03")


@dataclass(frozen=True)
class _Unit:
    """One thing that is reached; *text* gives its content, with what it refers to by number."""

    label: str
    text: Callable[[], str]
    held: Any


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
    """Everything a function reaches in the project.

    Things get numbers in the order in which they are met, and a text refers to them by number. So
    neither the names of modules nor cycles matter, and the texts together are equal when, and only
    when, all that was reached is.
    """

    def __init__(self, project: Project) -> None:
        self.spots: dict[str, None] = {}
        self._project = project
        self._numbers: dict[Hashable, int] = {}
        self._units: list[_Unit] = []
        self._labels: dict[str, int] = {}
        self._modules: dict[tuple[int, str], Module] = {}
        self._texts: list[str] = []

    def follow(self, function: Callable[..., Any]) -> None:
        """Reach everything from *function*."""
        self._refer(function)
        # Each text may meet more.
        for unit in iter(self._pending, None):
            self._texts.append(unit.text())

    def _pending(self) -> _Unit | None:
        done = len(self._texts)
        return self._units[done] if done < len(self._units) else None

    @property
    def digest(self) -> str:
        """The digest of all that was reached."""
        return digest_of(text.encode() for text in self._texts).hex()

    @property
    def parts(self) -> dict[str, str]:
        """A short digest of each thing that was reached by its name."""

        def named(match: re.Match[str]) -> str:
            return self._units[int(match[1])].label

        return {
            unit.label: bytes_digest(_UNIT.sub(named, text).encode())[:12]
            for unit, text in zip(self._units, self._texts, strict=True)
        }

    def _unit(self, key: Hashable, label: str, held: Any, text: Callable[[str], str]) -> str:
        """Return the reference to a thing; *held* stays alive, as the key may be an id."""
        number = self._numbers.get(key)
        if number is None:
            count = self._labels[label] = self._labels.get(label, 0) + 1
            label = label if count == 1 else f"{label} #{count}"
            number = self._numbers[key] = len(self._units)
            self._units.append(_Unit(label, lambda: text(label), held))
        return f"\x02{number}\x03"

    def _spot(self, text: str) -> None:
        self.spots.setdefault(text)

    # Names -------------------------------------------------------------------------------------

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
            return self._cell(name, view, attributes)
        if name in view.module.names:
            return self._global(view.module, name, attributes)
        if name in vars(builtins):
            return _external("builtins", (name, *attributes))
        return _external("nothing", (name, *attributes))

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
        inner = submodule(module, name)
        if inner is not None:
            return self._member(inner, tuple(rest))
        if ours is not None and "__getattr__" in ours.names:
            self._spot(f"{ours.label}.{name}, made by {ours.label}.__getattr__")
            return f"{self._global(ours, '__getattr__', ())}:{'.'.join(attributes)}"
        return _external("nothing", attributes)

    def _global(self, module: Module, name: str, attributes: tuple[str, ...] = ()) -> str:
        if name in _PLACE:
            return _external("module", (name, *attributes))
        value = module.names[name]
        imported = module.source.imports.get(name)
        if issubclass(type(value), types.ModuleType):
            written = (
                ".".join(filter(None, (imported.start, imported.attribute))) if imported else None
            )
            return self._member(value, attributes, written)
        if imported is not None and imported.attribute is not None:
            origins = [(module.absolute(imported.start), imported.attribute)]
        elif imported is None and not module.source.statements(name):
            origins = [(module.absolute(star), name) for star in module.source.stars]
        else:
            origins = []
        for home, original in origins:
            found = self._at_home(home, original, value, attributes)
            if found is not None:
                return found
        suffix = "".join(f".{each}" for each in attributes)
        return self._value(value, module, name) + suffix

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
        if names.get(name, MISSING) is not value:
            return None
        return self._global(module, name, attributes)

    def _value(self, value: Any, module: Module, name: str) -> str:
        if self._is_ours(value):
            return self._refer(value)
        if _is_wrapper(value) and module.source.is_defined(name):
            return self._refer(value)
        key = ("global", id(module.names), name)
        return self._unit(
            key,
            f"{module.label}.{name}",
            value,
            lambda label: self._held(value, module, name, label),
        )

    def _held(self, value: Any, module: Module, name: str, label: str) -> str:
        """Return the text of what a global holds: its value, else the statements that make it."""
        line = module.source.changes.get(name)
        if line is not None:
            value = _first_seen(module.names, name, module.source, value)
            self._spot(f"{label}, changed by code in line {line}: what it held at first counts")
        try:
            text = self._encoded(value, module, label)
        except NotPlain:
            return f"{self._type(value)} {self._statements(module, name, label)}"
        made = _is_wrapper(value) or type(value) is types.FunctionType
        if made and not module.source.is_defined(name):
            text += self._statements(module, name, label)
        return text

    def _statements(self, module: Module, name: str, label: str) -> str:
        nodes = module.source.statements(name)
        if not nodes:
            self._spot(f"{label}, which no statement of {module.label} makes")
        return self._form(module.source.form(("statements", name), nodes), _View(module, label))

    def _cell(self, name: str, view: _View, attributes: tuple[str, ...]) -> str:
        """Return the reference to a variable of an enclosing function."""
        cell = view.cells[name]
        try:
            value = cell.cell_contents
        except ValueError:
            return _external("nothing", (name, *attributes))
        if issubclass(type(value), types.ModuleType):
            return self._member(value, attributes)

        def text(label: str) -> str:
            held = _first_seen(cell, name, None, value) if name in view.changed else value
            try:
                return self._encoded(held, view.module, label)
            except NotPlain:
                self._spot(f"{label}, of which only the type counts ({type(value).__qualname__})")
                return self._type(value)

        suffix = "".join(f".{each}" for each in attributes)
        if self._is_ours(value):
            return self._refer(value) + suffix
        return self._unit(("cell", id(cell)), f"{view.label}: {name}", cell, text) + suffix

    # Values ------------------------------------------------------------------------------------

    def _encoded(self, value: Any, module: Module, label: str, *, mutable: bool = True) -> str:
        encoder = ValueEncoder(self._refer, root=module.root, mutable=mutable)
        text = encoder.encode(value)
        if encoder.met_path:
            self._spot(f"{label}, a path in the project: files count only when declared")
        return text

    def _type(self, value: Any) -> str:
        try:
            return self._refer(type(value))
        except NotPlain:
            return _external("type", (type(value).__qualname__,))

    def _refer(self, value: Any) -> str:
        """Return the reference to a function, class, module or wrapped function."""
        kind = type(value)
        if kind is types.FunctionType:
            return self._function(value)
        if issubclass(kind, type):
            return self._class(value)
        if issubclass(kind, types.ModuleType):
            return self._member(value, ())
        if issubclass(kind, _BUILTIN):
            owner = getattr(value, "__self__", None)
            if owner is not None and not issubclass(type(owner), types.ModuleType | type):
                raise NotPlain
            return _external("builtins", (value.__qualname__,))
        wrapped = vars_of(value).get("__wrapped__")
        if wrapped is None:
            raise NotPlain
        return f"wrapper({self._refer(kind)},{self._refer(wrapped)})"

    def _is_ours(self, value: Any) -> bool:
        """Tell whether a value is a function or a class of the project."""
        if type(value) is types.FunctionType:
            return self._project.has(value.__code__.co_filename)
        return _is_class(value) and self._module_of_class(value) is not None

    def _module(self, names: Mapping[str, Any], file: object = None) -> Module | None:
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
        nodes = module.source.settings
        if nodes:
            form = module.source.form("settings", nodes)
            self._unit(
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
        form = ours.source.form("module", [ours.source.tree])
        return self._unit(
            ("module", id(ours.names)),
            f"module {ours.label}",
            module,
            lambda label: self._form(form, _View(ours, label)),
        )

    # Functions ---------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType) -> str:
        code = function.__code__
        module = self._module(function.__globals__, code.co_filename)
        if module is None:
            _refuse_generated(function, self._project)
            return self._outer_function(function)
        definitions = module.source.functions(code)
        if not module.source.verify(code, module.names.get("__loader__")):
            loader = type(module.names.get("__loader__")).__name__
            self._spot(f"{module.label}, which {loader} changes while it loads it")
        qualname = definitions[0][0]
        return self._unit(
            ("function", id(function)),
            f"{module.label}.{qualname.replace('.<locals>', '')}",
            function,
            lambda label: self._function_text(function, module, label),
        )

    def _function_text(self, function: types.FunctionType, module: Module, label: str) -> str:
        code, source = function.__code__, module.source
        cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=False))
        view = _View(module, label)
        texts = []
        for index, (qualname, node) in enumerate(source.functions(code)):
            key = ("function", qualname, node.lineno, index)
            form = source.form(key, [node], defaults=False)
            changed = sorted(form.changes.keys() & cells.keys())
            for name in changed:
                self._spot(f"{label}: {name}, changed by {label}: what it held at first counts")
            view = _View(module, label, cells, changed)
            texts.append(self._form(form, view))
            texts += self._defaults(function, view, source.defaults(key, node))
        if "." in function.__qualname__:
            texts.append(self._class_of(function))
        else:
            texts.append(self._patches(module, function.__name__, view))
        return "\n".join(texts)

    def _defaults(
        self, function: types.FunctionType, view: _View, forms: Mapping[str, Form]
    ) -> Iterator[str]:
        """Yield the default values; of one that may change while it is used, the expression."""
        for name, value in _default_values(function).items():
            try:
                text = self._encoded(value, view.module, view.label, mutable=False)
            except NotPlain:
                text = self._form(forms[name], view) if name in forms else self._type(value)
            yield f"{name}={text}"

    def _class_of(self, function: types.FunctionType) -> str:
        """Return the reference to the class of a method that is taken by itself."""
        names = function.__qualname__.split(".")[:-1]
        found = function.__globals__.get(names[0])
        for name in names[1:]:
            found = vars(found).get(name) if _is_class(found) else None
        return self._refer(found) if _is_class(found) else ""

    def _outer_function(self, function: types.FunctionType) -> str:
        """Return the text of a function from outside: what it holds of the project."""
        held = [self._refer(each) for each in self._held_inside(function, set())]
        name = "" if held else f"{_top(function)}:{function.__qualname__}"
        return f"function {name}({','.join(held)})"

    def _held_inside(self, function: types.FunctionType, seen: set[int]) -> Iterator[Any]:
        seen.add(id(function))
        for each in _contents(function):
            if self._is_ours(each):
                yield each
            elif type(each) is types.FunctionType and id(each) not in seen:
                yield from self._held_inside(each, seen)
            elif _is_wrapper(each):
                yield each

    # Classes -----------------------------------------------------------------------------------

    def _class(self, cls: type) -> str:
        module = self._module_of_class(cls)
        if module is None:
            return f"class {_top(cls)}:{cls.__qualname__}"
        return self._unit(
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
        cells: dict[str, types.CellType] = {}
        added = []
        methods = [(name, m) for name, v in vars(cls).items() for m in _functions_in(v)]
        for name, method in methods:
            code = method.__code__
            places = {id(node) for _, node in source.functions(code)}
            inside = code.co_filename == module.file and any(
                id(each) in places for node in nodes for each in node.body
            )
            if inside:
                source.verify(code, module.names.get("__loader__"))
                cells |= zip(code.co_freevars, method.__closure__ or (), strict=False)
            elif self._project.has(code.co_filename):
                added.append(f"{name}={self._refer(method)}")
        cells.pop("__class__", None)
        view = _View(module, label, cells)
        form = source.form(("class", cls.__qualname__), nodes)
        return "\n".join(
            (self._form(form, view), *added, self._patches(module, cls.__name__, view))
        )

    def _module_of_class(self, cls: type) -> Module | None:
        module = sys.modules.get(cls.__module__)
        if module is not None and not self._project.has(vars_of(module).get("__file__")):
            return None
        # Another module may have been loaded by the same name since.
        for value in vars(cls).values():
            for method in _functions_in(value):
                if method.__module__ == cls.__module__:
                    return self._module(method.__globals__)
        return self._module(vars_of(module))

    def _patches(self, module: Module, name: str, view: _View) -> str:
        nodes = module.source.patches(name)
        return self._form(module.source.form(("patches", name), nodes), view) if nodes else ""


_FIRST: dict[tuple[int, str], tuple[Any, Source | None, Any]] = {}


def _first_seen(owner: Any, name: str, source: Source | None, value: Any) -> Any:
    """Return what a variable that running code changes held when this process first asked."""
    key = (id(owner), name)
    seen = _FIRST.get(key)
    if seen is None or seen[0] is not owner or seen[1] is not source:
        seen = _FIRST[key] = owner, source, snapshot(value)
    return seen[2]


def _external(home: str, names: Iterable[str]) -> str:
    return f"<{'.'.join((home, *names))}>"


def _is_class(value: Any) -> bool:
    return issubclass(type(value), type)


def _is_wrapper(value: Any) -> bool:
    return type(vars_of(value).get("__wrapped__")) is types.FunctionType


def _top(value: Any) -> str:
    # Libraries move what they define between their modules.
    return str(getattr(value, "__module__", None)).partition(".")[0]


def _functions_in(member: Any) -> Iterator[types.FunctionType]:
    """Yield the functions of a class member: of a method, or of a property."""
    for each in (member, *(getattr(member, n, None) for n in ("__func__", "fget", "fset", "fdel"))):
        if type(each) is types.FunctionType:
            yield each


def _contents(function: types.FunctionType) -> Iterator[Any]:
    """Yield what a function holds: what it wraps, and what is in its closure."""
    if "__wrapped__" in vars_of(function):
        yield vars_of(function)["__wrapped__"]
    for cell in function.__closure__ or ():
        try:
            content = cell.cell_contents
        except ValueError:
            continue
        if type(content) in (list, tuple):
            yield from content
        elif type(content) in (dict, types.MappingProxyType):
            yield from content.values()
        else:
            yield content


def _default_values(function: types.FunctionType) -> dict[str, Any]:
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    values = function.__defaults__ or ()
    found = dict(zip(positional[len(positional) - len(values) :], values, strict=True))
    return {**found, **(function.__kwdefaults__ or {})}


def _refuse_generated(function: types.FunctionType, project: Project) -> None:
    names = function.__globals__
    ours = project.has(names.get("__file__")) or (
        names.get("__name__") == "__main__" and "__file__" not in names
    )
    if ours and function.__code__.co_filename.startswith("<"):
        raise FingerprintError(
            f"{function.__qualname__}() was typed into an interpreter or made by exec(): expected a "
            f"function from a file, got one from {function.__code__.co_filename}. Code without a "
            "source file cannot be fingerprinted; write it to a module."
        )

"""The registry of formats: which exist, for which types and extensions, and what they need.

A row is text only; a format's module, and the library it needs, is imported when it is first used.
Other packages add theirs with :func:`register_format`, or by an entry point in the group
``airflow_provider_dbnd.formats`` that names a :class:`FormatRow`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Literal

from airflow_provider_dbnd.core.conversion import AnnotationKey
from airflow_provider_dbnd.core.formats.annotations import data_type, qualified_names, type_name
from airflow_provider_dbnd.core.formats.base import Format
from airflow_provider_dbnd.core.formats.containers import (
    CONTAINERS,
    SPARK_FRAME,
    is_spark_frame,
    is_tabular,
)
from airflow_provider_dbnd.core.formats.json import is_json_type
from airflow_provider_dbnd.exceptions import FormatNotFoundError, MissingDependencyError

ENTRY_POINT_GROUP = "airflow_provider_dbnd.formats"

#: Stand in :attr:`FormatRow.types` for more than a class: all tables (frames, Arrow tables,
#: iterators of them), whatever pydantic takes to JSON, exactly str and bytes, anything.
TABLE = "table"
JSON = "json"
STR = "str"
BYTES = "bytes"
ANY = "*"

#: Names of formats that run code when they load.
PICKLES = frozenset({"pickle", "joblib", "skops"})

_COMPRESSIONS = ("gz", "bz2", "xz", "zst", "zip")

Medium = Literal["local", "remote"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatRow:
    """One registered format.

    :param target: "module:attribute" of the format's class
    :param extensions: without dots; the first is given to new files
    :param types: "package.Class" names it stores, or constants of this module
    :param reads: types that a file can be read as beyond those
    :param needs: importable modules it cannot work without
    :param default: whether values of its types are stored in it when nothing is declared
    :param medium: where it is the default, when another format is elsewhere
    :param by_extension: whether the class takes the extension, as it decides on the bytes
    :param loadable: whether a string given for a parameter of its types is a URI to load
    """

    name: str
    target: str
    extensions: tuple[str, ...]
    types: tuple[str, ...]
    reads: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    default: bool = False
    medium: Medium | None = None
    by_extension: bool = False
    loadable: bool = False

    def stores(self, type_: Any) -> bool:
        """Tell whether values of an annotation can be stored in this format."""
        return any(_fits(kind, type_) for kind in self.types)

    def restores(self, type_: Any) -> bool:
        """Tell whether a file of this format can be read as an annotation."""
        return self.stores(type_) or any(_fits(kind, type_) for kind in self.reads)


_ROWS: dict[str, FormatRow] = {}


def register_format(row: FormatRow) -> None:
    """Add a format, or replace the one of its name.

    register_format(
        FormatRow(
            name="geo",
            target="geo_formats:GeoParquet",
            extensions=("geoparquet",),
            types=("geopandas.GeoDataFrame",),
            loadable=True,
        )
    )
    """
    _ROWS[row.name] = row
    _is_data_type.cache_clear()


def format_for_output(
    type_: Any, *, medium: Medium, name: str | None = None, extension: str | None = None
) -> tuple[Format, str]:
    """Choose how to store a value of *type_*; return the format and the file's extension.

    :param medium: tables are mapped from a local disk and compressed on remote storage
    :param name: the declared format (``output.csv``), or None
    :param extension: of a declared path, or None
    """
    if name is None and extension is None:
        row = _default(type_, medium)
    else:
        row = _matching(_named(name, extension), type_, FormatRow.stores)
    extension = _extension_for(row, extension)
    return _load(row, extension), extension


def format_for_input(type_: Any, *, format: str | None, extension: str | None) -> Format:
    """Choose how to read a file as *type_*.

    :param type_: an annotation, or the name of a type as a reference has it
    :param format: what a reference says, or None for a file that has no reference
    """
    if format is None and not extension:
        raise FormatNotFoundError(
            f"cannot tell the format of a file without an extension, to be read as "
            f"{type_name(type_)}; name its format or give it one of: {_known_extensions(type_)}"
        )
    rows = _named(format, None if format else extension)
    row = rows[0] if isinstance(type_, str) else _matching(rows, type_, FormatRow.restores)
    return _load(row, extension or row.extensions[0])


def extension_of(path: str) -> str:
    """Return the extension of a path or URI, with that of its compression ("csv.gz").

    >>> extension_of("s3://bucket/2024.1/flights.csv.gz"), extension_of("a/b")
    ('csv.gz', '')
    """
    # In any other name than a web address, "?" is a character.
    is_web = path.startswith(("http://", "https://"))
    name = (path.partition("?")[0] if is_web else path).rpartition("/")[2].lower()
    stem, _, last = name.rpartition(".")
    if last in _COMPRESSIONS and "." in stem:
        return f"{stem.rpartition('.')[2]}.{last}"
    return last if stem else ""


def is_data_type(type_: Any) -> bool:
    """Tell whether an annotation is data, so that a string given for it is a URI to load."""
    return _is_data_type(AnnotationKey(type_))


@lru_cache(maxsize=1024)
def _is_data_type(key: AnnotationKey) -> bool:
    # Asked for every value between tasks.
    type_ = key.annotation
    return (
        is_tabular(type_)
        or is_spark_frame(type_)
        or any(
            row.loadable and row.stores(type_) for row in _rows().values() if TABLE not in row.types
        )
    )


def is_stored_type(type_: Any) -> bool:
    """Tell whether values of a type have a default format, so that an output may be one."""
    return any(row.default and row.stores(type_) for row in _rows().values())


def has_own_format(type_: Any) -> bool:
    """Tell whether values of a type are stored as themselves by default, and not as text or JSON."""
    rows = [row for row in _rows().values() if not {STR, JSON} & set(row.types)]
    return any(row.default and row.stores(type_) for row in rows)


def formats() -> tuple[FormatRow, ...]:
    """Return all registered formats."""
    return tuple(_rows().values())


def _fits(kind: str, type_: Any) -> bool:
    type_ = data_type(type_)
    if kind in (STR, BYTES):
        return bool(type_ is {STR: str, BYTES: bytes}[kind])
    if kind == TABLE:
        return is_tabular(type_)
    if kind == JSON:
        return is_json_type(type_)
    return kind == ANY or kind in qualified_names(type_)


def _default(type_: Any, medium: Medium) -> FormatRow:
    rows = [row for row in _rows().values() if row.default and row.stores(type_)]
    if not rows:
        raise FormatNotFoundError(
            f"no format stores a {type_name(type_)} unless one is declared: annotate the output "
            "with output.pickle, output.joblib or output.skops, or return "
            f"one of: {_stored_types()}"
        )
    by_medium = [row for row in rows if row.medium == medium]
    return (by_medium or rows)[0]


def _named(name: str | None, extension: str | None) -> list[FormatRow]:
    """Return the rows of a declared name, those that only share it as an extension last."""
    if name is not None:
        rows = [row for row in _rows().values() if name in (row.name, *row.extensions)]
        rows.sort(key=lambda row: row.name != name)
        what = f"format {name!r}"
    else:
        plain = _plain_extension(extension)
        rows = [row for row in _rows().values() if plain in row.extensions]
        what = f"format for the extension {extension!r}"
    if not rows:
        raise FormatNotFoundError(
            f"there is no {what}; formats: {', '.join(_rows())}; "
            f"extensions: {', '.join(_all_extensions())}"
        )
    return rows


def _matching(
    rows: list[FormatRow], type_: Any, fits: Callable[[FormatRow, Any], bool]
) -> FormatRow:
    for row in rows:
        if fits(row, type_):
            return row
    raise FormatNotFoundError(
        f"format {rows[0].name!r} does not hold a {type_name(type_)}; "
        f"formats that do: {_names_for(type_)}"
    )


def _load(row: FormatRow, extension: str) -> Format:
    missing = [module for module in row.needs if find_spec(module) is None]
    if missing:
        raise MissingDependencyError(f"format {row.name!r} needs: pip install {' '.join(missing)}")
    module, _, attribute = row.target.partition(":")
    class_ = getattr(import_module(module), attribute)
    format_: Format = class_(extension) if row.by_extension else class_()
    return format_


def _extension_for(row: FormatRow, declared: str | None) -> str:
    if declared and _plain_extension(declared) in row.extensions:
        return declared.lstrip(".").lower()
    return row.extensions[0]


def _plain_extension(extension: str | None) -> str:
    """Return an extension without its dot and compression ("csv" of ".csv.gz")."""
    parts = (extension or "").lower().lstrip(".").split(".")
    if len(parts) > 1 and parts[-1] in _COMPRESSIONS:
        parts.pop()
    return parts[-1]


def _names_for(type_: Any) -> str:
    return ", ".join(row.name for row in _rows().values() if row.stores(type_)) or "none"


def _known_extensions(type_: Any) -> str:
    fitting = [row for row in _rows().values() if row.stores(type_)]
    return ", ".join(extension for row in fitting for extension in row.extensions)


def _all_extensions() -> list[str]:
    return sorted({extension for row in _rows().values() for extension in row.extensions})


def _stored_types() -> str:
    names = (name for row in _rows().values() if row.default for name in row.types)
    return ", ".join(
        dict.fromkeys([*CONTAINERS, *(name for name in names if name not in (TABLE, ANY))])
    )


def _rows() -> dict[str, FormatRow]:
    _load_entry_points()
    return _ROWS


@lru_cache(maxsize=1)
def _load_entry_points() -> None:
    for point in entry_points(group=ENTRY_POINT_GROUP):
        register_format(point.load())


def _builtin(name: str, target: str, *extensions: str, **row: Any) -> None:
    register_format(
        FormatRow(
            name=name,
            target=f"airflow_provider_dbnd.core.formats.{target}",
            extensions=extensions,
            **row,
        )
    )


_TABLES: dict[str, Any] = {
    "types": (TABLE,),
    "reads": (SPARK_FRAME,),
    "needs": ("pyarrow", "numpy"),
}
_TEXT_TABLES: dict[str, Any] = {**_TABLES, "by_extension": True}

_builtin("arrow", "arrow:ArrowFormat", "arrow", "ipc", default=True, medium="local", **_TABLES)
_builtin(
    "parquet",
    "parquet:ParquetFormat",
    "parquet",
    "pq",
    types=(TABLE, SPARK_FRAME),
    needs=("pyarrow", "numpy"),
    default=True,
    medium="remote",
)
_builtin("feather", "arrow:FeatherFormat", "feather", **_TABLES)
_builtin("csv", "csv:CsvFormat", "csv", **_TEXT_TABLES)
_builtin("tsv", "csv:TsvFormat", "tsv", "tab", **_TEXT_TABLES)
_builtin("jsonl", "jsonl:JsonLinesFormat", "jsonl", "ndjson", **_TEXT_TABLES)
_builtin("records", "jsonl:JsonRecordsFormat", "json", **_TEXT_TABLES)
_builtin(
    "excel", "excel:ExcelFormat", "xlsx", types=(TABLE,), needs=("pyarrow", "pandas", "openpyxl")
)
_builtin(
    "npy",
    "npy:NpyFormat",
    "npy",
    types=("numpy.ndarray",),
    needs=("numpy",),
    default=True,
    loadable=True,
)
_builtin("text", "text:TextFormat", "txt", "text", "md", "html", "log", types=(STR,), default=True)
_builtin("bytes", "bytes:BytesFormat", "bin", types=(BYTES,), default=True)
_builtin(
    "figure",
    "figure:FigureFormat",
    "png",
    "svg",
    "pdf",
    types=("matplotlib.Figure",),
    reads=(BYTES,),
    needs=("matplotlib",),
    default=True,
    by_extension=True,
)
_builtin("file", "file:FileFormat", "file", types=("pathlib.Path",), reads=(ANY,), default=True)
_builtin("json", "json:JsonFormat", "json", types=(JSON,), default=True)
_builtin("pickle", "pickle:PickleFormat", "pickle", "pkl", types=(ANY,))
_builtin("joblib", "pickle:JoblibFormat", "joblib", types=(ANY,), needs=("joblib",))
_builtin("skops", "pickle:SkopsFormat", "skops", types=(ANY,), needs=("skops",))

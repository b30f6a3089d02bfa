"""What Arrow's types are in Spark, and which of them Spark cannot hold.

A column is read as what lies in the file (``stored``) and made what it means (``value``): Spark knows
no nanoseconds and no durations in parquet, and reads both as whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_dbnd.core.formats.canonical import is_extension, logical_type
from airflow_provider_dbnd.exceptions import FormatError

#: Option of reading that accepts the loss of what a message names.
LOSSY = "lossy"

_UTC = ("UTC", "Etc/UTC", "+00:00")
_MICROS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_EPOCH = "TIMESTAMP_NTZ'1970-01-01 00:00:00'"
_DECIMAL_DIGITS = 38


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkColumn:
    """One column of a stored table in Spark.

    :param type: Spark's type of its values
    :param arrow: the Arrow type that Spark takes them in
    :param stored: Spark's type of what lies in a parquet file
    :param value: makes the column expression of the one out of the other
    :param loss: what to say where a value of the Arrow type does not fit, None to cut it
    """

    name: str
    type: Any
    arrow: Any
    stored: Any
    value: Callable[[], Any]
    loss: str | None


def spark_columns(schema: Any, *, lossy: bool, cut: bool) -> list[SparkColumn]:
    """Return the columns of an Arrow schema in Spark; FormatError names what would be lost.

    :param lossy: accept the loss of what a type says besides its values, such as categories.
    :param cut: accept the loss of nanoseconds, which is an error when a value has some.
    """
    return [_column(field, _Loss(field.name, lossy, cut)) for field in schema]


def spark_schema(columns: list[SparkColumn], of: Callable[[SparkColumn], Any]) -> Any:
    """Return the Spark schema of *columns* by one of their types."""
    from pyspark.sql.types import StructField, StructType

    return StructType([StructField(column.name, of(column)) for column in columns])


@dataclass(frozen=True, slots=True)
class _Loss:
    """Refuses what Spark cannot hold in one column, or lets it pass."""

    name: str
    lossy: bool
    cut: bool

    def unless_lossy(self, type_: Any, what: str, remedy: str) -> None:
        if not self.lossy:
            raise FormatError(
                f"column {self.name!r} of type {type_} would lose its {what} in Spark; {remedy}, or "
                f"read it with load_options={{'{LOSSY}': True}} if that does not matter"
            )

    def refusal(self, type_: Any, remedy: str) -> FormatError:
        return FormatError(
            f"column {self.name!r} of type {type_} cannot be read by Spark; {remedy}"
        )


def _column(field: Any, loss: _Loss) -> SparkColumn:
    from pyarrow import types
    from pyspark.sql.types import IntegerType

    type_, arrow = _types(field.type, loss)
    if types.is_dictionary(field.type):
        field = field.with_type(field.type.value_type)
    name = quoted(field.name)
    stored: Any = type_
    value: Callable[[], Any] = partial(_sql, name)
    if types.is_timestamp(field.type) and field.type.unit == "ns":
        stored, value = _nanoseconds(field, loss)
    elif types.is_duration(field.type):
        stored, value = _duration(field, loss)
    elif types.is_null(field.type):
        stored, value = IntegerType(), partial(_sql, "NULL")
    else:
        _check_nested(field.type, field.type, loss)
    return SparkColumn(
        name=field.name,
        type=type_,
        arrow=arrow,
        stored=stored,
        value=value,
        loss=None if loss.cut else _nanoseconds_lost(field.name, field.type),
    )


def _types(type_: Any, loss: _Loss) -> tuple[Any, Any]:
    """Return Spark's type for an Arrow type, and the Arrow type that Spark takes."""
    import pyarrow as pa
    from pyarrow import types

    plain = _plain(type_)
    if plain is not None:
        return plain
    if types.is_decimal(type_):
        return _decimal(type_, loss)
    if types.is_timestamp(type_):
        return _timestamp(type_, loss)
    if types.is_dictionary(type_):
        order = " and their order" if type_.ordered else ""
        loss.unless_lossy(type_, f"categories{order}", "convert it to the type of its values")
        return _types(type_.value_type, loss)
    if types.is_run_end_encoded(type_):
        return _types(type_.value_type, loss)
    if is_extension(type_):
        name = type_.extension_name
        loss.unless_lossy(type_, f"extension type {name!r}", "convert it to its storage type")
        return _types(type_.storage_type, loss)
    if types.is_struct(type_) or types.is_map(type_) or logical_type(type_).startswith("list<"):
        return _nested(type_, loss)
    if types.is_float16(type_):
        raise loss.refusal(type_, "convert it to float32")
    if types.is_time(type_):
        raise loss.refusal(type_, "convert it to a duration or to text")
    if types.is_duration(type_):
        from pyspark.sql.types import DayTimeIntervalType

        return DayTimeIntervalType(), pa.duration("us")
    raise loss.refusal(type_, "convert it to another type")


def _plain(type_: Any) -> tuple[Any, Any] | None:
    import pyarrow as pa
    from pyarrow import types as arrow
    from pyspark.sql import types as spark

    # Spark has no unsigned numbers: the next larger type holds them all.
    rows: tuple[tuple[Callable[[Any], bool], Any, Any], ...] = (
        (arrow.is_int8, spark.ByteType(), pa.int8()),
        (arrow.is_int16, spark.ShortType(), pa.int16()),
        (arrow.is_int32, spark.IntegerType(), pa.int32()),
        (arrow.is_int64, spark.LongType(), pa.int64()),
        (arrow.is_uint8, spark.ShortType(), pa.int16()),
        (arrow.is_uint16, spark.IntegerType(), pa.int32()),
        (arrow.is_uint32, spark.LongType(), pa.int64()),
        (arrow.is_uint64, spark.DecimalType(20, 0), pa.decimal128(20, 0)),
        (arrow.is_float32, spark.FloatType(), pa.float32()),
        (arrow.is_float64, spark.DoubleType(), pa.float64()),
        (arrow.is_boolean, spark.BooleanType(), pa.bool_()),
        (arrow.is_date, spark.DateType(), pa.date32()),
        (arrow.is_null, spark.NullType(), pa.null()),
        (arrow.is_fixed_size_binary, spark.BinaryType(), pa.binary()),
    )
    for is_type, in_spark, in_arrow in rows:
        if is_type(type_):
            return in_spark, in_arrow
    texts = {
        "string": (spark.StringType(), pa.string()),
        "binary": (spark.BinaryType(), pa.binary()),
    }
    return None if arrow.is_union(type_) else texts.get(logical_type(type_))


def _decimal(type_: Any, loss: _Loss) -> tuple[Any, Any]:
    import pyarrow as pa
    from pyspark.sql.types import DecimalType

    if type_.precision > _DECIMAL_DIGITS or not 0 <= type_.scale <= type_.precision:
        raise loss.refusal(type_, f"convert it to a decimal of at most {_DECIMAL_DIGITS} digits")
    return (
        DecimalType(type_.precision, type_.scale),
        pa.decimal128(type_.precision, type_.scale),
    )


def _timestamp(type_: Any, loss: _Loss) -> tuple[Any, Any]:
    import pyarrow as pa
    from pyspark.sql.types import TimestampNTZType, TimestampType

    if type_.tz is None:
        return TimestampNTZType(), pa.timestamp("us")
    if type_.tz not in _UTC:
        loss.unless_lossy(type_, f"time zone {type_.tz}", "convert it to UTC")
    return TimestampType(), pa.timestamp("us", "UTC")


def _nested(type_: Any, loss: _Loss) -> tuple[Any, Any]:
    import pyarrow as pa
    from pyarrow import types
    from pyspark.sql import types as spark

    if types.is_struct(type_):
        inner = [(field.name, *_types(field.type, loss)) for field in type_]
        return (
            spark.StructType([spark.StructField(name, in_spark) for name, in_spark, _ in inner]),
            pa.struct([(name, in_arrow) for name, _, in_arrow in inner]),
        )
    if types.is_map(type_):
        keys, values = _types(type_.key_type, loss), _types(type_.item_type, loss)
        return spark.MapType(keys[0], values[0]), pa.map_(keys[1], values[1])
    in_spark, in_arrow = _types(type_.value_type, loss)
    return spark.ArrayType(in_spark), pa.list_(in_arrow)


def _check_nested(type_: Any, whole: Any, loss: _Loss) -> None:
    """Refuse inside of others what only columns of their own are converted from."""
    from pyarrow import types

    for field in (type_.field(number) for number in range(type_.num_fields)):
        nanoseconds = types.is_timestamp(field.type) and field.type.unit == "ns"
        if nanoseconds or types.is_duration(field.type) or types.is_null(field.type):
            raise loss.refusal(whole, f"convert {field.type} in it to another type")
        _check_nested(field.type, whole, loss)


def _nanoseconds(field: Any, loss: _Loss) -> tuple[Any, Callable[[], Any]]:
    """Read a time as a number; one that has more than microseconds is an error."""
    from pyspark.sql.types import LongType

    micros = f"{quoted(field.name)} DIV 1000"
    made = (
        f"{_EPOCH} + {_interval(micros)}"
        if field.type.tz is None
        else f"TIMESTAMP_MICROS({micros})"
    )
    return LongType(), partial(_sql if loss.cut else partial(_exact, field), made)


def _duration(field: Any, loss: _Loss) -> tuple[Any, Callable[[], Any]]:
    from pyspark.sql.types import LongType

    name = quoted(field.name)
    if field.type.unit != "ns":
        return LongType(), partial(_sql, _interval(f"{name} * {_MICROS[field.type.unit]}L"))
    made = _interval(f"{name} DIV 1000")
    return LongType(), partial(_sql if loss.cut else partial(_exact, field), made)


def _exact(field: Any, made: str) -> Any:
    """Make a column that fails, when it is computed, where a value has nanoseconds."""
    from pyspark.sql import functions

    name = quoted(field.name)
    return functions.when(_sql(f"{name} IS NULL OR {name} % 1000 = 0"), _sql(made)).otherwise(
        functions.raise_error(functions.lit(_nanoseconds_lost(field.name, field.type)))
    )


def _nanoseconds_lost(name: str, type_: Any) -> str:
    return (
        f"column {name!r} of type {type_} has nanoseconds, which Spark would lose; round it to "
        f"microseconds, or read it with load_options={{'{LOSSY}': True}}"
    )


def _interval(micros: str) -> str:
    return f"INTERVAL '0.000001' SECOND * ({micros})"


def _sql(text: str) -> Any:
    from pyspark.sql.functions import expr

    return expr(text)


def quoted(name: str) -> str:
    """Return a column's name as SQL writes it."""
    return "`" + name.replace("`", "``") + "`"

"""How an output of a past run is written: ``PIPELINE/TASK[INDEX]/OUTPUT[PART]@VERSION``.

Everything after the pipeline may be left out: no index means all instances of a mapped task, no
output all outputs of the task, no version the newest. ``TASK[OUTPUT]`` is ``TASK/OUTPUT``.
A part that holds brackets, or digits that are no index, is quoted as in JSON: ``OUTPUT["7"]``.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

from airflow_provider_dbnd.core.manifest import Identity
from airflow_provider_dbnd.exceptions import ParameterError

Moment: TypeAlias = "str | dt.date | dt.datetime"
"""A time as a caller gives it: ISO text, a date, a datetime; UTC where no zone is named."""

#: What may stand before ``:`` in a version; a run needs no word.
_WORDS = ("run", "as_of", "partition", "tag")
_LATEST = "latest"
_PART = re.compile(r'\[("(?:[^"\\]|\\.)*"|[^\[\]"][^\[\]]*)\]')
_SEGMENT = re.compile(rf"([^/@\[\]]+)((?:{_PART.pattern})*)")
_WHOLE = re.compile(
    rf"(?P<names>{_SEGMENT.pattern}(?:/{_SEGMENT.pattern}){{0,2}})(?:@(?P<version>.*))?", re.DOTALL
)
_PLAIN = re.compile(r'[^\[\]"][^\[\]]*')
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]|$)")
_FORM = "expected PIPELINE/TASK/OUTPUT[@VERSION], such as drift/prepare/result_1@tag:prod"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selector:
    """Which version is meant; none of these means the newest."""

    run: str | None = None
    as_of: dt.datetime | None = None
    partition: str | None = None
    tag: str | None = None

    def __str__(self) -> str:
        if self.run is not None:
            return f"@{self.run}"
        given = (f"@{name}:{value}" for name in _WORDS if (value := getattr(self, name)))
        return "".join(given)

    def __post_init__(self) -> None:
        given = [name for name in _WORDS if getattr(self, name) is not None]
        if len(given) > 1 and (self.run is not None or {"tag", "partition"} <= set(given)):
            raise ParameterError(
                f"{' and '.join(given)} name two versions: give one of them; as_of goes with "
                "partition and with tag."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Names an output, or all outputs of a task, a pipeline's, or one part of a value."""

    pipeline: str
    task: str | None = None
    index: int | None = None
    output: str | None = None
    path: tuple[Any, ...] = ()

    def __str__(self) -> str:
        index = "" if self.index is None else f"[{self.index}]"
        parts = "".join(f"[{_written(part)}]" for part in self.path)
        task = self.task and f"{self.task}{index}"
        return "/".join(name for name in (self.pipeline, task, self.output) if name) + parts


def parse(text: str) -> tuple[Address, Selector]:
    """Read an address with its version.

    >>> address, selector = parse("drift/prepare[3]/result_1@tag:prod")
    >>> str(address), address.index, selector.tag
    ('drift/prepare[3]/result_1', 3, 'prod')
    """
    whole = _WHOLE.fullmatch(text)
    found: list[tuple[str, list[Any]]] = [
        (segment[1], [_read(part, text) for part in _PART.findall(segment[2])])
        for segment in (_SEGMENT.finditer(whole["names"]) if whole else ())
    ]
    if whole is None or found[0][1]:
        raise _no_name(text)
    task, task_parts = found[1] if len(found) > 1 else (None, [])
    output, path = found[2] if len(found) > 2 else (None, [])
    index = task_parts.pop(0) if task_parts and isinstance(task_parts[0], int) else None
    if task_parts and output is None:
        output, path = str(task_parts[0]), task_parts[1:]
    elif task_parts:
        raise ParameterError(f"{text!r} names two outputs, {task_parts[0]!r} and {output!r}.")
    address = Address(
        pipeline=found[0][0],
        task=task,
        index=index,
        output=output,
        path=tuple(path),
    )
    return address, _version(whole["version"] or "", text)


def _read(part: str, text: str) -> int | str:
    if not part.startswith('"'):
        return int(part) if part.isdecimal() else part
    try:
        return str(json.loads(part))
    except ValueError as exc:
        raise _no_name(text) from exc


def _written(part: int | str) -> str:
    if isinstance(part, int) or (_PLAIN.fullmatch(part) and not part.isdecimal()):
        return str(part)
    return json.dumps(part, ensure_ascii=False)


def _no_name(text: str) -> ParameterError:
    hint = (
        ' A part with brackets or quotes in it is quoted: result_1["a]b"].' if "[" in text else ""
    )
    return ParameterError(f"{text!r} is not the name of an output: {_FORM}.{hint}")


def selector(
    *,
    run: str | None = None,
    as_of: Moment | None = None,
    partition: Moment | None = None,
    tag: str | None = None,
) -> Selector:
    """Return which version a caller's options mean."""
    return Selector(
        run=None if run == _LATEST else run,
        as_of=None if as_of is None else end_of(as_of),
        partition=None if partition is None else partition_text(partition),
        tag=tag,
    )


def end_of(moment: Moment) -> dt.datetime:
    """Return a time in UTC; a day means its end.

    >>> str(end_of("2026-01-31")), str(end_of("2026-01-31T06:00"))
    ('2026-01-31 23:59:59.999999+00:00', '2026-01-31 06:00:00+00:00')
    """
    return _time(moment, dt.time.max)


def start_of(moment: Moment) -> dt.datetime:
    """Return a time in UTC; a day means its start."""
    return _time(moment, dt.time.min)


def partition_text(partition: Moment) -> str:
    """Return how a partition is written: a day or a time in UTC where it is one, else as it is.

    >>> partition_text("2026-01-31T00:00:00+00:00"), partition_text("2026-01-31T06:00Z")
    ('2026-01-31', '2026-01-31T06:00:00')
    >>> partition_text("eu-west")
    'eu-west'
    """
    if isinstance(partition, str):
        found = _parsed(partition)
        if found is None:
            return partition
        partition = found
    if isinstance(partition, dt.datetime):
        partition = _in_utc(partition).replace(tzinfo=None)
        if partition.time() == dt.time.min:
            partition = partition.date()
    return partition.isoformat()


def partition_of(identity: Identity) -> str | None:
    """Return the partition an attempt belongs to: its key in Airflow, else its logical date."""
    partition = identity.partition or identity.logical_date
    return None if partition is None else partition_text(partition)


def time_of(identity: Identity) -> dt.datetime | None:
    """Return the time an attempt's data is of, where its partition or logical date says one."""
    for text in (identity.partition, identity.logical_date):
        if text is not None and (found := _parsed(text)) is not None:
            return start_of(found)
    return None


def _version(text: str, whole: str) -> Selector:
    if not text:
        return Selector()
    given: dict[str, str] = {}
    for each in text.split("@"):
        word, colon, value = each.partition(":")
        # The ids of Airflow's runs hold colons as well.
        if not colon or word not in _WORDS:
            word, value = "run", each
        if not value or word in given:
            raise ParameterError(f"{whole!r}: {each!r} is not a version: {_FORM}.")
        given[word] = value
    return selector(**given)


def _time(moment: Moment, of_day: dt.time) -> dt.datetime:
    found = _parsed(moment) if isinstance(moment, str) else moment
    if found is None:
        raise ParameterError(
            f"{moment!r} is not a time: expected a day or a time such as 2026-01-31 or "
            "2026-01-31T06:00."
        )
    if not isinstance(found, dt.datetime):
        found = dt.datetime.combine(found, of_day)
    return _in_utc(found)


def _parsed(text: str) -> dt.date | dt.datetime | None:
    # Newer Pythons take more for a day than a person would: "20260131".
    if not _DAY.match(text):
        return None
    for read in (dt.date.fromisoformat, dt.datetime.fromisoformat):
        try:
            return read(text.replace("Z", "+00:00"))
        except ValueError:
            continue
    return None


def _in_utc(moment: dt.datetime) -> dt.datetime:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=dt.timezone.utc)
    return aware.astimezone(dt.timezone.utc)

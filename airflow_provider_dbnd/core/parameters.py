"""Declarations of parameters and outputs: what a signature alone cannot say.

They are written in ``Annotated``, as a default, or as keyword arguments of the decorator::

    @task
    def f(n: Annotated[int, parameter(ge=0, description="rows to keep")] = 10): ...

    @task(result=output.csv[DataFrame], x=parameter(hidden=True)[str])
    def g(x): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, TypeVar

from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import SignatureError

Self = TypeVar("Self", bound="_Declaration")


class _Missing:
    """Marks the absence of a value where None is a value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()

#: pydantic's constraint names that ``parameter(...)`` takes as they are.
CONSTRAINTS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length", "pattern")


@dataclass(frozen=True, kw_only=True)
class _Declaration:
    type: Any = MISSING
    format: str | None = None
    description: str | None = None
    _options: ClassVar[frozenset[str]] = frozenset()

    def __call__(self: Self, **options: Any) -> Self:
        """Return a copy with *options* set."""
        unknown = options.keys() - self._options
        if unknown:
            name = sorted(unknown)[0]
            raise SignatureError(
                f"{type(self).__name__.lower()}() has no option {name!r}"
                f"{did_you_mean(name, self._options)}"
            )
        return replace(self, **options)

    def __getitem__(self: Self, type_: Any) -> Self:
        """Return a copy with the type set: ``parameter[int]``."""
        return replace(self, type=type_)

    def __getattr__(self: Self, name: str) -> Self:
        if name.startswith("_"):
            raise AttributeError(name)
        from airflow_provider_dbnd.core.formats import formats

        known = {row.name for row in formats()}
        if name in known:
            return replace(self, format=name)
        raise AttributeError(
            f"{type(self).__name__.lower()} has no format {name!r}{did_you_mean(name, known)}"
        )


@dataclass(frozen=True, kw_only=True)
class Parameter(_Declaration):
    """What is known of one parameter besides its name and annotation.

    ``hidden`` values are masked wherever a value is shown. ``significant=False`` keeps a value out
    of the identity that reuse compares. ``load_options`` go to the format's reader.
    """

    # Annotations are hashed wherever a union is made of them; what a user puts here need not be.
    default: Any = field(default=MISSING, hash=False)
    choices: Sequence[Any] | None = field(default=None, hash=False)
    hidden: bool = False
    significant: bool = True
    load_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    ge: Any = None
    gt: Any = None
    le: Any = None
    lt: Any = None
    multiple_of: Any = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    _options: ClassVar[frozenset[str]] = frozenset(
        ("type", "format", "description", "default", "choices", "hidden", "significant")
    ) | {"load_options", *CONSTRAINTS}

    @property
    def none(self) -> Parameter:
        """A copy whose default is None (DBND's spelling)."""
        return replace(self, default=None)

    def constraints(self) -> dict[str, Any]:
        """Return the constraints that are set, by pydantic's names."""
        return {c: v for c in CONSTRAINTS if (v := getattr(self, c)) is not None}


@dataclass(frozen=True, kw_only=True)
class Output(_Declaration):
    """How one output is stored.

    ``path`` also publishes the object there; it may hold the names of the function's parameters and
    ``{store} {pipeline} {task} {output} {run_id}``. ``save_options`` go to the format's writer.
    """

    name: str | None = None
    path: str | None = None
    save_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    _options: ClassVar[frozenset[str]] = frozenset(
        ("type", "format", "description", "name", "path", "save_options")
    )


#: Declares a parameter: ``parameter(default=1)[int]``, ``parameter.csv[DataFrame]``.
parameter: Final = Parameter()

#: Declares an output: ``output.parquet[DataFrame]``, ``output(path="s3://...")``.
output: Final = Output()


@dataclass(frozen=True, slots=True)
class RunValue:
    """A default that each run fills in, such as its logical date.

    :param annotation: type of the pipeline's parameter that has it.
    """

    name: str
    annotation: Any = field(default=None, hash=False, compare=False)

    def __repr__(self) -> str:
        return self.name.upper()


#: Default of a ``date`` or ``datetime`` parameter: the run's logical date, today outside Airflow.
LOGICAL_DATE: Final = RunValue("logical_date")

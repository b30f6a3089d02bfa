"""When a stored result may stand for a run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from airflow_provider_dbnd.core.conversion import convert
from airflow_provider_dbnd.core.parameters import Parameter
from airflow_provider_dbnd.core.suggestions import did_you_mean
from airflow_provider_dbnd.exceptions import ConfigurationError

Mode = Literal["off", "on", "refresh"]

#: What a run may say for all of its tasks, or for one.
MODES: tuple[Mode, ...] = ("off", "on", "refresh")


#: Fields that may be given as text: the classes they have, and the type they are read as.
_CONVERTED: Mapping[str, tuple[tuple[type, ...], Any]] = {
    "depends": ((tuple,), tuple[str, ...]),
    "ttl": ((dt.timedelta, type(None)), dt.timedelta | None),
    "single_flight": ((bool,), bool),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reuse:
    """The conditions of reuse, besides equal code, inputs and parameters.

    :param depends: what counts besides the code that the function reaches: an installed package by
        its version, a module, a file or a folder by its content.
    :param salt: any text; another one makes every earlier result another.
    :param ttl: how long a result may be used, as a timedelta or text such as ``"7d"``.
    :param single_flight: of runs that want the same result at once one computes it, the others wait.
    :param mode: ``on``; ``off``; ``refresh`` computes, and lets later runs use what comes out.

    >>> Reuse(ttl="2d").ttl
    datetime.timedelta(days=2)
    """

    depends: tuple[str, ...] = ()
    salt: str = ""
    ttl: dt.timedelta | None = None
    single_flight: bool = False
    mode: Mode = "on"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigurationError(
                f"reuse: mode is {self.mode!r}{did_you_mean(str(self.mode), MODES)}"
            )
        for name, (kinds, annotation) in _CONVERTED.items():
            value = getattr(self, name)
            if isinstance(value, kinds):
                continue  # pydantic is not loaded for nothing
            try:
                object.__setattr__(self, name, convert(value, annotation, Parameter()))
            except ValueError as exc:
                raise ConfigurationError(f"reuse: {name} is {value!r}. {exc}.") from exc


OFF = Reuse(mode="off")


def policy_of(option: Any, wanted: str | None = None) -> Reuse:
    """Read the option ``reuse``: True, False, a mode, a :class:`Reuse` or a table of its fields.

    :param wanted: what the run says instead of the option's mode.
    """
    policy = _read(option)
    if wanted is None:
        return policy
    if wanted not in MODES:
        raise ConfigurationError(f"reuse={wanted!r}{did_you_mean(wanted, MODES)}")
    return replace(policy, mode=wanted)


def _read(option: Any) -> Reuse:
    if option is None or option is False:
        return OFF
    if option is True:
        return Reuse()
    if isinstance(option, Reuse):
        return option
    if isinstance(option, str):
        return Reuse(mode=option)  # type: ignore[arg-type]  # checked there
    if isinstance(option, Mapping):
        known = [field.name for field in fields(Reuse)]
        for name in option:
            if name not in known:
                raise ConfigurationError(
                    f"reuse: unknown field {name!r}{did_you_mean(name, known)}"
                )
        return Reuse(**option)
    raise ConfigurationError(
        f"reuse={option!r}: expected True, False, one of {', '.join(MODES)}, or Reuse(...)."
    )

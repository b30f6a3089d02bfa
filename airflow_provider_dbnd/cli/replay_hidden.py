"""Hidden arguments of a test that ``dbnd replay --as-test`` writes: read from the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_dbnd.core.conversion import type_text
from airflow_provider_dbnd.core.execute import TaskSpec
from airflow_provider_dbnd.core.masking import masked, texts_of
from airflow_provider_dbnd.core.resolution import environment_variable
from airflow_provider_dbnd.core.values import is_plain
from airflow_provider_dbnd.exceptions import ConfigurationError, FormatError


@dataclass(frozen=True, kw_only=True, slots=True)
class HiddenArguments:
    """The hidden arguments of one task.

    ``variables`` names the environment variable of each, the one that `dbnd` itself reads;
    ``expressions`` read them in the test; ``texts`` are what the test must not hold.
    """

    variables: Mapping[str, str]
    expressions: Mapping[str, str]
    texts: Sequence[str]

    @classmethod
    def of(cls, spec: TaskSpec, loaded: Mapping[str, Any]) -> HiddenArguments:
        """Return those of *spec*, as they are *loaded*."""
        hidden = {n: loaded[n] for n, v in spec.arguments.items() if v.hidden}
        variables, expressions = dict[str, str](), dict[str, str]()
        for name, value in hidden.items():
            if not is_plain(value):
                raise FormatError(
                    f"parameter {name!r} is hidden, so a test would read it from the environment, which "
                    f"holds no {type_text(type(value))}: expected text, a number, or a list or dict of "
                    "them. Write the test by hand."
                )
            variables[name] = environment_variable(spec.identity.task_id, name)
            read = f"os.environ[{variables[name]!r}]"
            expressions[name] = read if isinstance(value, str) else f"json.loads({read})"
        given = [spec.arguments[name].value for name in hidden]
        return cls(
            variables=variables,
            expressions=expressions,
            texts=texts_of([*given, *hidden.values()]),
        )

    def imports(self) -> set[str]:
        """Return the imports of the expressions."""
        modules = {"json", "os"}
        return {f"import {m}" for m in modules for e in self.expressions.values() if f"{m}." in e}

    def needs(self) -> str:
        """Return what the docstring of the test says of the environment."""
        if not self.variables:
            return ""
        named = ", ".join(f"{name} in {variable}" for name, variable in self.variables.items())
        return f"\n\nHidden parameters are read from the environment: {named}.\n"

    def check(self, written: Mapping[str, str]) -> None:
        """Raise where the text of a parameter or result has a hidden value in it."""
        for name, text in written.items():
            if masked(text, self.texts) != text:
                raise ConfigurationError(
                    f"parameter or result {name!r} holds the value of a hidden parameter "
                    f"({', '.join(self.variables)}), which a test file must not. Write the test by hand."
                )

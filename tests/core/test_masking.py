"""Hidden values in messages and manifests, whatever they are and however they are quoted."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_project import Project

from airflow_provider_dbnd import parameter, task
from airflow_provider_dbnd.core.manifest import Identity, read_manifest
from airflow_provider_dbnd.core.masking import masked, texts_of

PEM = "-----BEGIN KEY-----\nkraken-7-first\nkraken-7-second\n-----END KEY-----\n"

QUOTINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "repr": repr,
    "repr of bytes": lambda text: repr(text.encode()),
    "both quotes": lambda text: repr(f"\"'{text}"),
    "repr in a repr": lambda text: str(KeyError(f"no {text!r}")),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "URL": lambda text: urllib.parse.quote(text, safe=""),
    "path of a URL": urllib.parse.quote,
    "form": urllib.parse.quote_plus,
    "group of exceptions": lambda text: text.replace("\n", "\n  | "),
}


@pytest.mark.parametrize("quoting", QUOTINGS.values(), ids=QUOTINGS)
@pytest.mark.parametrize(
    "secret",
    [PEM, "kraken-7\\kraken-7", "kraken-7/'+ kraken-7", "kraken-7 é"],
    ids=["PEM", "backslash", "quote", "accent"],
)
def test_a_hidden_value_is_masked_however_it_is_quoted(
    secret: str, quoting: Callable[[str], str]
) -> None:
    shown = masked(f"refused {quoting(secret)}!", texts_of(secret))

    assert "kraken" not in shown
    assert shown.startswith("refused ")
    assert shown.endswith("!")


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.strip), st.sampled_from(list(QUOTINGS.values())[:4]))
def test_no_text_is_left_by_its_quotes(secret: str, quoting: Callable[[str], str]) -> None:
    try:
        text = quoting(secret)
    except UnicodeEncodeError:
        return

    assert secret.strip() not in masked(text, texts_of(secret)).replace("***", "")


@dataclass
class Login:
    user: str
    password: str


class Account(pydantic.BaseModel):
    password: pydantic.SecretStr
    logins: list[Login]


@pytest.mark.parametrize(
    "value",
    [
        {"a": ["kraken-7"]},
        ("x", {"kraken-7"}),
        '{"password": "kraken-7"}',
        b"kraken-7",
        pydantic.SecretStr("kraken-7"),
        Login(user="me", password="kraken-7"),
        Account(password=pydantic.SecretStr("x"), logins=[Login(user="u", password="kraken-7")]),
        Account(password=pydantic.SecretStr("kraken-7"), logins=[]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_hidden_value_holds_is_hidden(value: Any) -> None:
    assert masked("no kraken-7 here", texts_of(value)) == "no *** here"


@pytest.mark.parametrize(
    "value", [None, "", " ", True, {}, {"dbnd_artifact": 1, "uri": "file:///a"}]
)
def test_what_names_no_secret_masks_nothing(value: Any) -> None:
    assert texts_of(value) == []


def test_the_longer_of_two_hidden_values_is_masked_as_a_whole() -> None:
    assert masked("token abcdef of abc", texts_of(["abc", "abcdef"])) == "token *** of ***"


@pytest.mark.parametrize("secret", [PEM, "kraken-7\\E"], ids=["PEM", "backslash"])
def test_a_manifest_holds_no_hidden_value_by_its_repr(project: Project, secret: str) -> None:
    @task
    def connect(key: Annotated[str, parameter(hidden=True)]) -> int:
        raise KeyError(f"bad key {key!r}")

    project.run(connect, {"key": secret}, run_id="r")

    key = Identity(pipeline="connect", run_id="r", task_id="connect").key()
    error = read_manifest(project.store, key).error or {}
    assert error["message"] == "\"bad key '***'\""
    assert "kraken" not in error["traceback"]

"""How requests to the HTTP API are signed, compared with the SDKs' own signing."""

from __future__ import annotations

import hashlib
import string
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pusher.http import Request  # type: ignore[import-untyped]
from pusher.pusher_client import PusherClient  # type: ignore[import-untyped]

from flask_presence.domain.pusher.api_signature import MAX_AGE, BadSignature, SignedRequest, read_request
from flask_presence.domain.pusher.signing import Signer

from ..support.effort import at_effort
from ..support.pusher_api import API_KEY, API_SECRET, signed_url

SIGNER = Signer(API_KEY, API_SECRET)
SDK = PusherClient("7", API_KEY, API_SECRET, host="localhost", ssl=False)
NAMES = st.text(string.ascii_letters + string.digits + "_-=@,.;", min_size=1, max_size=40)
# The SDK does not encode its query, so what means something in a URL cannot be in it.
VALUES = st.text(st.characters(exclude_characters="&#+%", exclude_categories=["Cs", "Cc"]), max_size=20)
PARAMETERS = st.dictionaries(st.sampled_from(["info", "filter_by_prefix", "x", "_y", "zz"]), VALUES)


def of_sdk(method: str, path: str, parameters: dict[str, Any]) -> tuple[SignedRequest, bytes, float]:
    """What the SDK from PyPI sends, its body, and its timestamp."""
    request = Request(SDK, method, path, parameters)
    return read_request(method, path, request.query_string), request.body, float(request.query_params["auth_timestamp"])


@settings(max_examples=at_effort(200))
@given(NAMES, PARAMETERS)
def test_what_the_sdk_signs_is_accepted(channel: str, parameters: dict[str, str]) -> None:
    """Its digest of an empty body, which it sends with a `GET`, is part of the signed text."""
    for method in ("GET", "POST"):
        signed, body, now = of_sdk(method, f"/apps/7/channels/{channel}", dict(parameters))
        signed.check(SIGNER, now)
        signed.check_body(body)
        assert "body_md5=" in signed.text
        with pytest.raises(BadSignature, match="body_md5"):
            signed.check_body(body + b" ")


@settings(max_examples=at_effort(200))
@given(PARAMETERS, st.data())
def test_any_change_of_a_signed_request_is_refused(parameters: dict[str, str], data: st.DataObject) -> None:
    signed, _, now = of_sdk("GET", "/apps/7/channels", dict(parameters))
    name = data.draw(st.sampled_from(sorted(signed.parameters)))
    value = data.draw(VALUES.filter(lambda text: text != signed.parameters[name]))
    changes = [
        SignedRequest(signed.method, signed.path, {**signed.parameters, name: value}),
        SignedRequest(signed.method, signed.path, {k: v for k, v in signed.parameters.items() if k != name}),
        SignedRequest(signed.method, signed.path, {**signed.parameters, f"{name}2": value}),
        SignedRequest("POST", signed.path, signed.parameters),
        SignedRequest(signed.method, signed.path + "/", signed.parameters),
    ]
    for changed in changes:
        with pytest.raises(BadSignature):
            changed.check(SIGNER, now)
    with pytest.raises(BadSignature):
        signed.check(Signer(API_KEY, API_SECRET + "x"), now)
    with pytest.raises(BadSignature, match="auth_key"):
        signed.check(Signer(API_KEY + "x", API_SECRET), now)


@pytest.mark.parametrize(("seconds", "accepted"), [(0, True), (600, True), (-600, True), (601, False), (-601, False)])
def test_a_timestamp_may_be_ten_minutes_old_or_early(seconds: int, accepted: bool) -> None:
    assert MAX_AGE == 600
    signed, _, now = of_sdk("GET", "/apps/7/channels", {})
    if accepted:
        signed.check(SIGNER, now + seconds)
    else:
        with pytest.raises(BadSignature, match="check the clocks of both"):
            signed.check(SIGNER, now + seconds)


@pytest.mark.parametrize("timestamp", ["", "-1", "1.5", "1e9", "٣", "9" * 16, " 1", "now"])
def test_a_timestamp_that_is_no_whole_number_is_refused(timestamp: str) -> None:
    url = signed_url("GET", "/p", parameters={"auth_timestamp": timestamp})
    with pytest.raises(BadSignature, match="auth_timestamp"):
        read_request("GET", "/p", urlsplit(url).query).check(SIGNER, 0)


def test_names_of_parameters_are_signed_in_lower_case_and_sorted() -> None:
    url = signed_url("GET", "/p", parameters={"B": "2", "a": "1", "Info": "x", "AUTH_KEY": API_KEY, "auth_key": None})
    signed = read_request("get", "/p", urlsplit(url).query)
    signed.check(SIGNER, float(signed.parameters["auth_timestamp"]))
    assert signed.text.startswith(f"GET\n/p\na=1&auth_key={API_KEY}&auth_timestamp=")
    assert signed.text.endswith("&auth_version=1.0&b=2&info=x")


def test_values_are_signed_decoded() -> None:
    url = signed_url("GET", "/p", parameters={"filter_by_prefix": "a b&c=d%é+/?"})
    signed = read_request("GET", "/p", urlsplit(url).query)
    signed.check(SIGNER, float(signed.parameters["auth_timestamp"]))
    assert signed.parameters["filter_by_prefix"] == "a b&c=d%é+/?"


@pytest.mark.parametrize("query", ["a=1&a=1", "a=1&A=2", "info=&info=x"])
def test_a_parameter_that_is_there_twice_is_refused(query: str) -> None:
    """Which of them counts depends on who reads it."""
    with pytest.raises(BadSignature, match="twice"):
        read_request("GET", "/p", query)


def test_a_body_needs_its_digest() -> None:
    request = SignedRequest("POST", "/p", {})
    request.check_body(b"")
    with pytest.raises(BadSignature, match="required"):
        request.check_body(b"{}")
    for digest in ("", "é", hashlib.md5(b"{}").hexdigest().upper(), hashlib.md5(b"[]").hexdigest()):
        with pytest.raises(BadSignature, match="MD5"):
            SignedRequest("POST", "/p", {"body_md5": digest}).check_body(b"{}")


@settings(max_examples=at_effort(200))
@given(st.text(max_size=60))
def test_any_query_is_refused_without_a_fault(query: str) -> None:
    with pytest.raises(BadSignature):
        read_request("GET", "/p", query).check(SIGNER, 0)


def test_a_refusal_says_what_was_to_be_signed_and_no_secret() -> None:
    signed, _, now = of_sdk("GET", "/apps/7/channels", {})
    wrong = SignedRequest(signed.method, signed.path, {**signed.parameters, "auth_signature": "0" * 64})
    with pytest.raises(BadSignature) as refusal:
        wrong.check(SIGNER, now)
    assert repr(signed.text) in str(refusal.value)
    assert signed.parameters["auth_signature"] not in str(refusal.value)
    assert API_SECRET not in str(refusal.value)

"""The wire format: any bytes are one request, or are rejected with one error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_presence.domain import wire
from flask_presence.domain.errors import RequestError
from flask_presence.domain.timestamps import isoformat

from ..support.effort import at_effort

JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["join", "leave", "channel:message", "channel:update", "ping", "auth", "other"])
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "type": TYPES | JSON,
        "channel": st.just("presence-x") | JSON,
        "data": JSON,
        "event": JSON,
        "userInfo": JSON,
        "token": JSON,
        "requestId": JSON,
        "__proto__": JSON,
    },
)


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_raise(payload: bytes) -> None:
    outcome = wire.decode_request(payload)
    assert isinstance(outcome, (wire.Request, wire.Rejected))
    wire.read_request_id(payload)


@given(REQUESTS)
@settings(max_examples=at_effort(100))
def test_every_object_is_a_request_or_is_rejected_with_a_code(request: dict[str, Any]) -> None:
    """The `requestId` is never lost."""
    payload = json.dumps(request).encode()
    outcome = wire.decode_request(payload)
    problem = outcome.error if isinstance(outcome, wire.Rejected) else None
    assert problem is None or isinstance(problem, RequestError)
    if problem is not None and problem.code == "INVALID_JSON":
        return
    if "requestId" in request:
        assert json.loads(bytes(outcome.requestId)) == request["requestId"]
    else:
        assert outcome.requestId is wire.ABSENT
    if request.get("type") not in ("join", "leave", "channel:message", "channel:update", "ping", "auth"):
        assert problem is not None
        assert problem.code == "UNKNOWN_MESSAGE_TYPE"


@given(JSON)
def test_data_and_request_id_come_out_byte_for_byte(data: Any) -> None:
    raw = json.dumps(data)
    payload = f'{{"type":"channel:message","channel":"x","data":{raw},"requestId":{raw}}}'.encode()
    request = wire.decode_request(payload)
    if isinstance(request, wire.Rejected):
        assert request.error.code == "INVALID_JSON"
        return
    assert isinstance(request, wire.Message)
    assert bytes(request.data) == raw.encode()
    assert f'"requestId":{raw}'.encode() in wire.answer(wire.Pong(timestamp=1), request.requestId)


def test_an_error_repeats_at_most_200_characters_of_the_type() -> None:
    outcome = wire.decode_request(json.dumps({"type": "x" * 5000}).encode())
    assert isinstance(outcome, wire.Rejected)
    assert outcome.error.message == "Unknown message type: " + "x" * 200


@pytest.mark.parametrize("text", ["NaN", "[1,", '"\\ud800"', "Infinity", "1 2"])
def test_json_that_clients_cannot_parse_raises_type_error(text: str) -> None:
    with pytest.raises(TypeError):
        wire.check_json(text)


def test_a_time_without_a_zone_raises_value_error() -> None:
    from datetime import datetime

    with pytest.raises(ValueError, match="time zone"):
        isoformat(datetime(2024, 1, 1))  # noqa: DTZ001

"""The frame codec follows RFC 6455, whichever way the bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_presence.transport.codec import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Decoder,
    Message,
    encode_close,
    encode_frame,
    parse_close,
    unmask,
)

MASK = b"\x11\x22\x33\x44"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes = MASK, rsv: int = 0) -> bytes:
    """A client's frame."""
    size = len(payload)
    if size < 126:
        length = bytes((0x80 | size,))
    elif size < 65536:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes((final << 7 | rsv << 4 | opcode,)) + length + mask + unmask(payload, mask)


def decode(data: bytes, max_size: int = 1000) -> tuple[list[Message], int | None]:
    decoder = Decoder(max_size)
    messages = decoder.feed(data)
    return messages, decoder.failure.code if decoder.failure else None


GOOD = {
    "text": (frame(TEXT, b"Hello"), [(TEXT, b"Hello")]),
    "rfc 5.7: masked Hello": (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", [(TEXT, b"Hello")]),
    "empty text": (frame(TEXT), [(TEXT, b"")]),
    "binary": (frame(BINARY, b"\xff\x00"), [(BINARY, b"\xff\x00")]),
    "125 bytes": (frame(TEXT, b"x" * 125), [(TEXT, b"x" * 125)]),
    "126 bytes": (frame(TEXT, b"x" * 126), [(TEXT, b"x" * 126)]),
    "at the limit": (frame(TEXT, b"x" * 1000), [(TEXT, b"x" * 1000)]),
    "two frames": (frame(TEXT, b"a") + frame(TEXT, b"b"), [(TEXT, b"a"), (TEXT, b"b")]),
    "fragments": (
        frame(TEXT, b"a", final=False) + frame(CONTINUATION, b"b", final=False) + frame(CONTINUATION, b"c"),
        [(TEXT, b"abc")],
    ),
    "ping between fragments": (
        frame(TEXT, b"a", final=False) + frame(PING, b"p") + frame(CONTINUATION, b"b"),
        [(PING, b"p"), (TEXT, b"ab")],
    ),
    "utf-8 cut by a fragment": (
        frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION, b"\xa4"),
        [(TEXT, "ä".encode())],
    ),
    "empty fragments": (
        frame(TEXT, final=False) + frame(CONTINUATION, final=False) + frame(CONTINUATION),
        [(TEXT, b"")],
    ),
    "ping, 125 bytes": (frame(PING, b"x" * 125), [(PING, b"x" * 125)]),
    "pong unasked": (frame(PONG, b"x"), [(PONG, b"x")]),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_valid_frame_is_decoded(case: str) -> None:
    data, messages = GOOD[case]
    assert decode(data) == (messages, None)


BAD = {
    "unmasked": (b"\x81\x05Hello", 1002),
    "unmasked, head only": (b"\x81\x05", 1002),
    **{f"rsv {bits}": (frame(TEXT, b"x", rsv=bits), 1002) for bits in range(1, 8)},
    **{f"opcode {code:x}": (frame(code, b"x"), 1002) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "fragmented ping": (frame(PING, b"x", final=False), 1002),
    "fragmented close": (frame(CLOSE, b"", final=False), 1002),
    "ping, 126 bytes": (frame(PING, b"x" * 126), 1002),
    "close, 126 bytes": (frame(CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "final continuation of nothing": (frame(CONTINUATION, b"x", final=False), 1002),
    "new message inside another": (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), 1002),
    "new fragmented message inside another": (frame(TEXT, b"a", final=False) + frame(BINARY, b"b", final=False), 1002),
    "length 126 for less": (b"\x81\xfe\x00\x7d" + MASK, 1002),
    "length 127 for less": (b"\x81\xff" + (65535).to_bytes(8, "big") + MASK, 1002),
    "length with the top bit": (b"\x81\xff" + b"\xff" * 8 + MASK, 1002),
    "invalid utf-8": (frame(TEXT, b"\xff"), 1007),
    "cut utf-8": (frame(TEXT, b"\xc3"), 1007),
    "surrogate in utf-8": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "overlong utf-8": (frame(TEXT, b"\xc0\xaf"), 1007),
    "beyond unicode": (frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "invalid utf-8 in a fragment": (frame(TEXT, b"\xff", final=False), 1007),
    "cut utf-8 over fragments": (frame(TEXT, b"\xc3", final=False) + frame(CONTINUATION), 1007),
    "one byte over": (frame(TEXT, b"x" * 1001), 1009),
    "announced, not sent": (b"\x81\xff" + (1 << 40).to_bytes(8, "big"), 1009),
    "fragments over the limit": (frame(TEXT, b"x" * 600, final=False) + frame(CONTINUATION, b"x" * 401), 1009),
    "too many fragments": (
        frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False) * 1024,
        1008,
    ),
    "close, one byte": (frame(CLOSE, b"\x03"), 1002),
    "close, bad reason": (frame(CLOSE, b"\x03\xe8\xff"), 1007),
}


@pytest.mark.parametrize("case", BAD)
def test_an_invalid_frame_fails_with_its_close_code(case: str) -> None:
    data, code = BAD[case]
    assert decode(data)[1] == code


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999])
def test_a_close_code_that_a_peer_may_send_is_accepted(code: int) -> None:
    """The decoder returns the code and the reason."""
    messages, _ = decode(frame(CLOSE, code.to_bytes(2, "big") + b"bye"))
    assert [parse_close(payload) for _, payload in messages] == [(code, "bye")]


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_a_close_code_that_nobody_may_send_is_a_protocol_error(code: int) -> None:
    assert decode(frame(CLOSE, code.to_bytes(2, "big"))) == ([], 1002)


def test_frames_after_a_close_frame_are_ignored() -> None:
    """A close frame without a code has the code 1005."""
    messages, _ = decode(frame(CLOSE) + frame(TEXT, b"late"))
    assert [(opcode, parse_close(payload)) for opcode, payload in messages] == [(CLOSE, (1005, ""))]


def test_a_frame_that_is_too_large_is_refused_by_its_head() -> None:
    """The decoder does not wait for the payload."""
    decoder = Decoder(1000)
    decoder.feed(b"\x81\xff" + (1 << 40).to_bytes(8, "big"))
    assert decoder.failure is not None
    assert decoder.failure.code == 1009


def test_messages_before_an_invalid_frame_are_delivered() -> None:
    assert decode(frame(TEXT, b"ok") + frame(3)) == ([(TEXT, b"ok")], 1002)


ANY_STREAM = st.lists(
    st.sampled_from([*(data for data, _ in GOOD.values()), *(data for data, _ in BAD.values())]), max_size=4
)


@given(ANY_STREAM.map(b"".join), st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_the_same_bytes_give_the_same_messages_in_any_pieces(stream: bytes, sizes: list[int]) -> None:
    """The failure, if there is one, is the same too."""
    whole = Decoder(1000)
    expected = whole.feed(stream)
    cut = Decoder(1000)
    messages: list[Message] = []
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(stream) or cut.failure:
            break
        messages += cut.feed(stream[position : position + size])
        position += size
    assert (messages, cut.failure) == (expected, whole.failure)


@given(st.binary(max_size=400))
def test_no_bytes_make_the_decoder_raise(data: bytes) -> None:
    Decoder(100).feed(data)


@given(st.binary(max_size=3000), st.binary(min_size=4, max_size=4))
def test_unmasking_is_a_bytewise_xor(payload: bytes, mask: bytes) -> None:
    """RFC 6455, section 5.3."""
    assert unmask(payload, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


@pytest.mark.parametrize(("size", "head"), [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_an_encoded_frame_has_the_shortest_possible_head(size: int, head: int) -> None:
    encoded = encode_frame(b"x" * size)
    assert (len(encoded), encoded[0]) == (head + size, 0x81)


def test_a_close_reason_is_cut_to_123_bytes_between_characters() -> None:
    assert encode_close(1005) == b"\x88\x00"
    assert encode_close(4403, "bye") == b"\x88\x05\x11\x33bye"
    assert parse_close(encode_close(1000, "ü" * 100)[2:]) == (1000, "ü" * 61)

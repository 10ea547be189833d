"""Webhooks: what back ends elsewhere are told, when they answer, when they do not, and when they are slow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from flask import Flask
from pusher import Pusher  # type: ignore[import-untyped]
from websockets.sync.client import connect

from flask_presence import ChannelName, ConfigurationError, MessageSent, Presence, User
from flask_presence.app import webhooks
from flask_presence.app.http_post import post
from flask_presence.app.webhooks import Webhooks
from flask_presence.domain.pusher.signing import Signer
from flask_presence.loops.inline_loop import InlineLoop

from ..conftest import on_redis
from ..support.client import Client, client
from ..support.ports import free_port
from ..support.redis_server import RedisServer
from ..support.server import DEADLINE, ROOT, Server, running, wait_until
from ..support.webhook_receiver import Delivery, Receiver, receiving

KEY, SECRET = "test-key", "a secret of the tests"
SIGNER = Signer(KEY, SECRET)
QUICK = {"FIRST_DELAY": 0.01, "MAX_DELAY": 0.05}
APP = "tests.support.webhooks_app:create_app()"
KINDS = ["gunicorn-gevent", "gunicorn-gthread", "pywsgi-unpatched"]


@contextmanager
def serving(*receivers: Receiver, kind: str | None = None, pace: dict[str, Any] = QUICK, **options: Any) -> Any:
    urls = [receiver.url("/hook?secret=hidden") for receiver in receivers]
    with running(app=APP, kind=kind, PRESENCE_PUSHER_WEBHOOKS=urls, WEBHOOKS=pace, **options) as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def in_turn(*statuses: int) -> Any:
    """An answer with these statuses, one after another, and 200 when they are used up."""
    left = list(statuses)
    return lambda _delivery: (left.pop(0) if left else 200, {})


def numbers(receiver: Receiver) -> list[str]:
    return [event["data"] for event in receiver.events]


def say(sender: Client, channel: str, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        sender.say(channel, number)


def sdk_reads(delivery: Delivery) -> dict[str, Any]:
    """What PyPI's `pusher` makes of a delivery, which it must accept."""
    headers = delivery.headers
    sdk = Pusher(app_id="1", key=KEY, secret=SECRET)
    read = sdk.validate_webhook(headers["x-pusher-key"], headers["x-pusher-signature"], delivery.body.decode())
    assert read is not None
    return dict(read)


@pytest.mark.parametrize("kind", KINDS)
def test_members_and_messages_of_native_clients_are_reported(receiver: Receiver, kind: str) -> None:
    with serving(receiver, kind=kind) as server, client(server, "bob") as bob:
        with client(server, "ann") as ann:
            ann.join("presence-room")
            ann.say("presence-room", {"x": [1]}, event="typing")
            bob.join("private-desk")
            bob.say("private-desk", "words")
            bob.say("private-desk", "17")
        events = receiver.wait_for(5)
    assert [event for event in events if event["channel"] == "presence-room"] == [
        {"name": "member_added", "channel": "presence-room", "user_id": "ann"},
        {
            "name": "client_event",
            "channel": "presence-room",
            "event": "client-typing",
            "data": '{"x": [1]}',
            "socket_id": ann.id,
            "user_id": "ann",
        },
        {"name": "member_removed", "channel": "presence-room", "user_id": "ann"},
    ]
    of_bob = {"name": "client_event", "channel": "private-desk", "event": "client-message", "socket_id": bob.id}
    assert [event for event in events if event["channel"] == "private-desk"] == [
        of_bob | {"data": "words"},
        of_bob | {"data": '"17"'},
    ]


def test_the_client_events_of_pusher_connections_are_reported(receiver: Receiver) -> None:
    with serving(receiver) as server, connect(f"ws://{server.host}/app/{KEY}?protocol=7") as socket:
        socket_id = json.loads(json.loads(socket.recv(DEADLINE))["data"])["socket_id"]
        data = '{"user_id":7}'
        auth = SIGNER.channel_auth(socket_id, "presence-room", data)
        subscription = {"channel": "presence-room", "auth": auth, "channel_data": data}
        for frame in (
            {"event": "pusher:subscribe", "data": subscription},
            {"event": "client-typing", "channel": "presence-room", "data": {"fast": True}},
        ):
            socket.send(json.dumps(frame))
        events = receiver.wait_for(2)
    typing = {"name": "client_event", "channel": "presence-room", "event": "client-typing", "data": '{"fast": true}'}
    assert events == [
        {"name": "member_added", "channel": "presence-room", "user_id": "7"},
        typing | {"socket_id": socket_id, "user_id": "7"},
    ]


def test_a_user_with_two_tabs_is_reported_once(receiver: Receiver) -> None:
    with serving(receiver) as server:
        with client(server, "ann") as first, client(server, "ann") as second:
            first.join("presence-room")
            second.join("presence-room")
        receiver.wait_for(2)
    assert [event["name"] for event in receiver.events] == ["member_added", "member_removed"]


def test_native_names_that_pusher_clients_cannot_use_are_not_reported(receiver: Receiver) -> None:
    with serving(receiver) as server, client(server, "ann") as ann:
        ann.join("presence-café")
        ann.join("#server-to-user-bob")
        ann.say("#server-to-user-bob", 1)
        ann.join("presence-room")
        assert [event["channel"] for event in receiver.wait_for(1)] == ["presence-room"]


def test_the_sdk_accepts_a_webhook_and_no_other_body(receiver: Receiver) -> None:
    with serving(receiver) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        receiver.wait_for(1)
        (delivery,) = receiver.accepted
    assert sdk_reads(delivery)["events"] == delivery.events
    assert abs(sdk_reads(delivery)["time_ms"] / 1000 - time.time()) < 60
    assert delivery.headers["content-type"] == "application/json"
    assert delivery.path == "/hook?secret=hidden"
    forged = delivery.body.replace(b"ann", b"bob")
    sdk = Pusher(app_id="1", key=KEY, secret=SECRET)
    assert sdk.validate_webhook(KEY, delivery.headers["x-pusher-signature"], forged.decode()) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_webhook_that_fails_is_sent_again_with_a_new_signature(receiver: Receiver, kind: str) -> None:
    receiver.answer = in_turn(500, 404, 503)
    with serving(receiver, kind=kind) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        receiver.wait_for(1)
        log, deliveries = server.log(), list(receiver.deliveries)
    assert len(deliveries) == 4
    times = [sdk_reads(delivery)["time_ms"] for delivery in deliveries]
    assert times == sorted(set(times))
    assert len({delivery.headers["x-pusher-signature"] for delivery in deliveries}) == 4
    assert "failed, and is tried again: status 500" in log
    assert "hidden" not in log
    assert SECRET not in log


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    with receiving() as elsewhere:
        replies = iter([(302, {"Location": elsewhere.url()}), (307, {"Location": elsewhere.url()})])
        receiver.answer = lambda _delivery: next(replies, (200, {}))
        with serving(receiver) as server, client(server, "ann") as ann:
            ann.join("presence-room")
            receiver.wait_for(1)
            assert len(receiver.deliveries) == 3
        assert not elsewhere.deliveries


def test_a_receiver_that_comes_back_hears_everything_in_order() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with running(app=APP, PRESENCE_PUSHER_WEBHOOKS=[url], WEBHOOKS=QUICK) as server, client(server, "ann") as ann:
        ann.join("private-desk")
        say(ann, "private-desk", 30)
        wait_until(lambda: "ConnectionRefusedError" in server.log())
        with receiving(port=port) as receiver:
            say(ann, "private-desk", 30, first=30)
            receiver.wait_for(60)
            assert numbers(receiver) == [str(number) for number in range(60)]


def test_what_happens_during_a_post_is_sent_together_in_the_next_one(receiver: Receiver) -> None:
    with serving(receiver) as server, client(server, "ann") as ann:
        ann.join("private-desk")
        others_are_sent = threading.Event()

        def answer(_delivery: Delivery) -> tuple[int, dict[str, str]]:
            assert others_are_sent.wait(DEADLINE)
            return 200, {}

        receiver.answer = answer
        say(ann, "private-desk", 1)
        wait_until(lambda: receiver.deliveries)
        say(ann, "private-desk", 150, first=1)
        others_are_sent.set()
        receiver.wait_for(151)
        assert numbers(receiver) == [str(number) for number in range(151)]
        assert [len(delivery.events) for delivery in receiver.accepted] == [1, 100, 50]


def test_an_event_that_nobody_takes_is_dropped_with_a_line_in_the_log(receiver: Receiver) -> None:
    receiver.answer = lambda _delivery: (500, {})
    pace = {**QUICK, "GIVE_UP_AFTER": 0.2}
    with serving(receiver, pace=pace) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        wait_until(lambda: "dropped 1 event(s), because no attempt has succeeded" in server.log())
        receiver.answer = lambda _delivery: (200, {})
        ann.join("presence-hall")
        assert [event["channel"] for event in receiver.wait_for(1)] == ["presence-hall"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_receiver_that_hangs_delays_neither_clients_nor_another_receiver(receiver: Receiver, kind: str) -> None:
    with receiving() as stuck:
        stuck.answer = stuck.hang
        with serving(stuck, receiver, kind=kind) as server, client(server, "ann") as ann:
            ann.join("presence-room")
            wait_until(lambda: stuck.deliveries)
            say(ann, "presence-room", 20)
            receiver.wait_for(21)
            assert len(stuck.deliveries) == 1


def test_a_receiver_that_hangs_is_given_up_and_tried_again(receiver: Receiver) -> None:
    receiver.answer = lambda delivery: receiver.hang(delivery) if len(receiver.deliveries) == 1 else (200, {})
    pace = {**QUICK, "ATTEMPT_TIMEOUT": 0.2}
    with serving(receiver, pace=pace) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        receiver.wait_for(1)
        assert "failed, and is tried again: TimeoutError" in server.log()


def test_the_oldest_events_of_a_full_queue_are_dropped(receiver: Receiver) -> None:
    with receiving() as other, serving(receiver, other, pace={**QUICK, "MAX_QUEUE": 10}) as server:

        def answer(_delivery: Delivery) -> tuple[int, dict[str, str]]:
            if len(receiver.deliveries) == 1:
                other.wait_for(101)
            return 200, {}

        receiver.answer = answer
        with client(server, "ann") as ann:
            ann.join("private-desk")
            say(ann, "private-desk", 1)
            wait_until(lambda: receiver.deliveries)
            for number in range(1, 101):  # each waits for the other receiver, whose queue never fills
                ann.say("private-desk", number)
                other.wait_for(number + 1)
            receiver.wait_for(11)
            assert numbers(receiver) == [str(number) for number in (0, *range(91, 101))]
            assert "dropped 90 event(s), because the receiver takes them more slowly" in server.log()


def test_several_workers_report_each_event_once(receiver: Receiver, redis_server: RedisServer) -> None:
    with (
        serving(receiver, arguments=("--workers", "3"), **on_redis(redis_server)) as server,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(client(server, f"user-{number % 4}")) for number in range(12)]
        for one in clients:
            one.join("presence-room")
        clients[0].say("presence-room", "hello")
        events = receiver.wait_for(5)
        added = sorted(event["user_id"] for event in events if event["name"] == "member_added")
        assert added == [f"user-{number}" for number in range(4)]
        stack.pop_all().close()
        receiver.wait_for(9)
    removed = sorted(event["user_id"] for event in receiver.events if event["name"] == "member_removed")
    assert removed == [f"user-{number}" for number in range(4)]
    assert len(receiver.events) == 9


def test_a_worker_that_is_killed_has_its_members_reported_by_another(
    receiver: Receiver, redis_server: RedisServer
) -> None:
    settings = {**on_redis(redis_server), "PRESENCE_LEASE": 1, "PRESENCE_GRACE_ABRUPT": 0}
    with serving(receiver, **settings) as first, serving(receiver, **settings) as second:
        with client(second, "bob") as bob:
            bob.join("presence-room")
            with client(first, "ann") as ann:
                ann.join("presence-room")
                receiver.wait_for(2)
                first.kill()
                receiver.wait_for(3)
            assert receiver.events[2] == {"name": "member_removed", "channel": "presence-room", "user_id": "ann"}


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "gunicorn-gthread", "flask-run"])
def test_what_is_queued_is_sent_before_the_process_ends(receiver: Receiver, kind: str) -> None:
    with serving(receiver, kind=kind) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        receiver.wait_for(1)
        stop(server, signal.SIGINT if kind == "flask-run" else signal.SIGTERM)
        receiver.wait_for(2)
    assert [event["name"] for event in receiver.events] == ["member_added", "member_removed"]


def test_what_cannot_be_sent_when_the_process_ends_is_dropped_with_a_line_in_the_log(receiver: Receiver) -> None:
    receiver.answer = receiver.hang
    with serving(receiver) as server, client(server, "ann") as ann:
        ann.join("presence-room")
        wait_until(lambda: receiver.deliveries)
        stop(server)
        assert "dropped 2 event(s), because this process ends" in server.log()


def stop(server: Server, number: signal.Signals = signal.SIGTERM) -> None:
    server.process.send_signal(number)
    server.process.wait(DEADLINE)


def test_the_test_client_has_sent_the_webhooks_when_a_call_returns(receiver: Receiver) -> None:
    app = Flask("webhooks")
    presence = Presence(app, pusher_key=KEY, pusher_secret=SECRET, pusher_webhooks=[receiver.url()])
    with app.app_context(), presence.test_client(User("ann")) as ann:
        ann.join("presence-room")
        assert [event["name"] for event in receiver.events] == ["member_added"]
        ann.send("presence-room", "typing", True)
        assert [event["name"] for event in receiver.events] == ["member_added", "client_event"]


def test_a_process_that_is_forked_sends_nothing_of_its_parent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parent tries again what has failed, and the child must not."""
    monkeypatch.setattr(webhooks, "FIRST_DELAY", 0.1)
    receiver.answer = lambda _delivery: (500, {})
    loop = InlineLoop()
    sender = Webhooks([receiver.url()], SIGNER, lambda: loop)
    sender.add(MessageSent("1.2", None, ChannelName("private-before"), "typing", b"1"))
    loop.settle()
    assert receiver.deliveries
    sender.forked()
    receiver.answer = lambda _delivery: (200, {})

    def retry_was_due() -> bool:
        loop.settle()
        return not loop._timers

    wait_until(retry_was_due)
    sender.add(MessageSent("1.2", None, ChannelName("private-after"), "typing", b"1"))
    loop.settle()
    assert [event["channel"] for event in receiver.events] == ["private-after"]


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "https://ann:secret@x/", "https://x/#part", "https://x:none/", "https://x/é", "/hook", "https://"],
)
def test_an_address_that_cannot_be_used_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="PRESENCE_PUSHER_WEBHOOKS must be a list of URLs") as problem:
        Presence(Flask("webhooks"), pusher_key=KEY, pusher_secret=SECRET, pusher_webhooks=[url])
    assert "secret" not in str(problem.value)


def test_a_script_that_disconnects_a_user_reports_it_before_it_ends(
    receiver: Receiver, redis_server: RedisServer
) -> None:
    """The grace period of a user who is not connected ends in the process that disconnects them."""
    settings = {**on_redis(redis_server), "PRESENCE_GRACE_ABRUPT": 60}
    script = (
        "from tests.support.webhooks_app import create_app\n"
        "app = create_app()\n"
        "with app.app_context():\n"
        "    app.extensions['presence'].disconnect('ann')\n"
    )
    with serving(receiver, **settings) as server:
        with client(server, "ann") as ann:
            ann.join("presence-room")
            receiver.wait_for(1)
            ann.cut()
        wait_until(lambda: not server.json("/online/ann"))
        environ = {f"FLASK_{key}": json.dumps(value) for key, value in settings.items()}
        environ["FLASK_PRESENCE_PUSHER_WEBHOOKS"] = json.dumps([receiver.url()])
        subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, env=os.environ | environ, timeout=DEADLINE)
        assert [event["name"] for event in receiver.wait_for(2)] == ["member_added", "member_removed"]


def test_an_answer_that_comes_byte_by_byte_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within the timeout of a socket, but the whole answer does not."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def drip() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            try:
                while not ended.wait(0.05):
                    sock.sendall(b"x")
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            post(f"http://127.0.0.1:{listener.getsockname()[1]}/", b"{}", {}, 0.3)
    finally:
        ended.set()
        thread.join(DEADLINE)
        listener.close()


def test_the_constants_are_those_that_the_documents_name() -> None:
    assert (webhooks.GIVE_UP_AFTER, webhooks.ATTEMPT_TIMEOUT, webhooks.MAX_QUEUE) == (300, 10, 10_000)

"""The state machine of connections: any sequence of requests on a real app, hub and backend, compared with a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pytest
from flask import Flask
from flask_jwt_extended import JWTManager
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from flask_presence import Presence, User, allow
from flask_presence.app import service
from flask_presence.app.service import Service
from flask_presence.backends.memory import MemoryBackend
from flask_presence.domain.errors import RequestError
from flask_presence.domain.roster import Joiner
from flask_presence.loops.inline_loop import InlineLoop
from flask_presence.loops.pending import Pending
from flask_presence.testing import TestClient

from ..support.effort import at_effort

T = TypeVar("T")

USERS = st.sampled_from([None, "ann", "bob"])
CHANNELS = st.sampled_from(["lobby", "private-a", "presence-a", "presence-b", "presence-staff", "private-staff"])
INFO = st.none() | st.dictionaries(
    st.sampled_from(["name", "x", "role"]), st.none() | st.text("ab", max_size=40), max_size=2
)
MAX_CHANNELS, MAX_INFO = 4, 60


def is_too_large(info: dict[str, Any] | None) -> bool:
    return info is not None and len(json.dumps(info, separators=(",", ":"))) > MAX_INFO


@dataclass(eq=False)
class Peer:
    """A connection, and the members that its snapshots and events have shown it."""

    client: TestClient
    user: str | None
    stack: ExitStack = field(default_factory=ExitStack)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answer(self, type: str, **fields: Any) -> tuple[str, Any]:
        """Send a request; return the type of its answer, or the error code, and the answer."""
        answer = self.client.request({"type": type, **fields})
        return answer.get("code", answer["type"]), answer

    def listen(self) -> list[dict[str, Any]]:
        """Apply the events about members that have arrived, and return the other events."""
        messages = []
        while self.client.received:
            event = self.client.receive()
            kind = event["type"]
            if not kind.startswith("presence:"):
                messages.append(event)
                continue
            view, member = self.views[event["channel"]], event["member"]
            assert (member["id"] in view) == (kind != "presence:member_joined"), event
            if kind == "presence:member_left":
                assert view.pop(member["id"]) == member
            else:
                view[member["id"]] = member
        return messages


class LateBackend(MemoryBackend):
    """The memory backend with changes that are settled later, as with Redis."""

    blocking = True

    def __init__(
        self, max_info: int, spawn: Callable[[Callable[[], object]], object], settle: Callable[[], object]
    ) -> None:
        super().__init__(max_info)
        self._spawn, self._settle = spawn, settle

    def _later(self, change: Callable[[], T]) -> Any:
        pending: Pending[T] = Pending()

        def happen() -> None:
            try:
                value = change()
            except RequestError as problem:
                pending.settle(partial(_throw, problem))
            else:
                pending.settle(lambda: value)

        self._spawn(happen)
        return pending

    def join(self, joiner: Joiner) -> Any:
        return self._later(partial(super().join, joiner))

    def leave(self, *arguments: Any, **options: Any) -> Any:
        return self._later(partial(super().leave, *arguments, **options))

    def update(self, *arguments: Any) -> Any:
        return self._later(partial(super().update, *arguments))

    def publish(self, *arguments: Any) -> Any:
        return self._later(partial(super().publish, *arguments))

    def disconnect(self, user_id: str | None, client_id: str | None, text: str) -> int:
        return self._now(self._listener.close_matching(user_id, client_id, text))

    def remove(self, channel: str, user_id: str, text: str) -> int:
        return self._now(self._listener.remove_from(channel, user_id, text))

    def _now(self, done: int | Pending[int]) -> int:
        self._settle()
        outcomes: list[Any] = [lambda: done]
        if isinstance(done, Pending):
            done.when(outcomes.append)
        count: int = outcomes[-1]()
        return count


def _throw(problem: Exception) -> Any:
    raise problem


class ConnectionMachine(RuleBasedStateMachine):
    """Clients connect, join, send, leave and disconnect in any order, and every view stays right."""

    peers = Bundle("peers")
    count = 1
    """The number of apps, each of which stands for a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.presence = Presence()
        self.presence.guard("staff")(lambda user: user.id == "ann")
        self.presence.guard("b")(lambda: allow(self.owned_info))
        self.owned_info: dict[str, Any] = {}
        self.owned_by_user: dict[str, dict[str, Any]] = {}  # as of the last join or recheck
        settings = self.configure()
        self.apps = [self.new_app(settings) for _ in range(self.count)]
        self.app = self.apps[0]
        self.connected: list[Peer] = []

    def configure(self) -> dict[str, Any]:
        """Settings that a subclass adds."""
        return {}

    def new_app(self, more: dict[str, Any]) -> Flask:
        app = Flask("state-machine")
        app.config.update(
            JWT_SECRET_KEY="a secret of thirty-two characters",
            PRESENCE_MAX_CHANNELS=MAX_CHANNELS,
            PRESENCE_MAX_USER_INFO=MAX_INFO,
            PRESENCE_RATE_LIMIT=None,
        )
        app.config.update(more)
        JWTManager(app)
        self.presence.init_app(app)
        return app

    @property
    def service(self) -> Service:
        service: Service = self.app.extensions["presence.service"]
        return service

    @initialize(target=peers, users=st.lists(USERS, min_size=2, max_size=5))
    def populate(self, users: list[str | None]) -> Any:
        """Begin with users who are in a channel already, because the interesting cases need several."""
        peers: list[Any] = [self.connect(user, app) for app, user in enumerate(users)]
        for peer in peers:
            self.join(peer, "presence-a" if peer.user else "lobby", None)
        return multiple(*peers)

    @rule(target=peers, user=USERS, app=st.integers(0, 9))
    def connect(self, user: str | None, app: int) -> Peer:
        home = self.apps[app % self.count]
        client = self.presence.test_client(user=User(user, name=user.title()) if user else None, app=home)
        peer = Peer(client, user)
        peer.stack.enter_context(client)
        self.connected.append(peer)
        return peer

    @rule(peer=peers, channel=CHANNELS, info=INFO)
    def join(self, peer: Peer, channel: str, info: dict[str, Any] | None) -> None:
        if peer not in self.connected:
            return
        peer.listen()
        fields = {} if info is None else {"userInfo": info}
        code, answer = peer.answer("join", channel=channel, **fields)
        peer.listen()
        if is_too_large(info):
            assert code == "INVALID_REQUEST"
        elif code != "channel:joined":
            assert channel not in peer.views or code == "JOIN_FAILED"
            public = channel == "lobby"
            full = len(peer.views) == MAX_CHANNELS  # the server checks this before it asks the guard
            staff = channel.endswith("staff") and peer.user == "bob" and not full
            if not public and (peer.user is None or staff):
                assert code == "FORBIDDEN"
            else:
                assert code == "JOIN_FAILED"
                assert full or info
        if code != "channel:joined":
            return
        if channel == "presence-b":
            self.owned_by_user[str(peer.user)] = self.owned_info
        assert peer.user is not None or channel == "lobby"
        assert len(peer.views) < MAX_CHANNELS or channel in peer.views
        peer.views[channel] = {member["id"]: member for member in answer.get("members", [])}
        if channel.startswith("presence-"):
            assert peer.views[channel][str(peer.user)] == answer["me"]

    @rule(peer=peers, channel=CHANNELS)
    def leave(self, peer: Peer, channel: str) -> None:
        if peer not in self.connected:
            return
        inside = any(channel in other.views for other in self.connected)
        code, _ = peer.answer("leave", channel=channel)
        peer.listen()
        assert code == ("channel:left" if channel in peer.views else "NOT_MEMBER" if inside else "NOT_FOUND")
        peer.views.pop(channel, None)

    @rule(peer=peers, channel=CHANNELS, info=INFO.filter(lambda info: info is not None))
    def update(self, peer: Peer, channel: str, info: dict[str, Any]) -> None:
        if peer not in self.connected:
            return
        code, answer = peer.answer("channel:update", channel=channel, userInfo=info)
        peer.listen()
        if is_too_large(info):
            assert code == "INVALID_REQUEST"
        elif channel in peer.views and channel.startswith("presence-"):
            assert code in ("channel:updated", "UPDATE_FAILED")
            if code == "channel:updated":
                peer.views[channel][str(peer.user)] = answer["member"]
        else:
            assert code == "UPDATE_FAILED"

    @rule(peer=peers, channel=CHANNELS, number=st.integers())
    def send(self, peer: Peer, channel: str, number: int) -> None:
        if peer not in self.connected:
            return
        for other in self.connected:
            other.listen()
        code, answer = peer.answer("channel:message", channel=channel, data=number)
        inside = [other for other in self.connected if channel in other.views and other is not peer]
        assert code == ("channel:sent" if channel in peer.views else "NOT_IN_CHANNEL")
        sent = code == "channel:sent"
        assert not sent or answer["delivered"] == len(inside)
        for other in self.connected:
            expected = [(channel, number, peer.client.client_id)] if sent and other in inside else []
            events = self.hear(other, lambda heard, expected=expected: len(heard) >= len(expected))  # type: ignore[misc]
            heard = [(event["channel"], event["data"], event["from"]["clientId"]) for event in events]
            assert heard == expected

    @rule(channel=CHANNELS, number=st.integers(), peer=peers)
    def broadcast(self, channel: str, number: int, peer: Peer) -> None:
        with self.app.app_context():
            inside = [other for other in self.connected if channel in other.views and other is not peer]
            message = {"type": "news", "number": number}
            assert self.presence.broadcast_to_channel(channel, message, exclude=peer.client.client_id) == len(inside)
        for other in self.connected:
            expected = [message] if other in inside else []
            enough = lambda heard, expected=expected: len(heard) >= len(expected)  # noqa: E731
            assert self.hear(other, enough) == expected

    @rule(peer=consumes(peers))
    def disconnect(self, peer: Peer) -> None:
        peer.stack.close()
        if peer in self.connected:
            self.connected.remove(peer)

    @rule(owned_info=st.fixed_dictionaries({}, optional={"role": st.none() | st.text("AB", max_size=3)}))
    def change_owned_info(self, owned_info: dict[str, Any]) -> None:
        """The guard gives other owned info from now on, and the whole channel is rechecked."""
        self.owned_info = owned_info
        inside = [peer for peer in self.connected if "presence-b" in peer.views]
        recheck = lambda: self.presence.recheck(channel="presence-b")  # noqa: E731
        assert self.everywhere(recheck) == len(inside)
        self.settle()
        self.owned_by_user.update({str(peer.user): owned_info for peer in inside})

    @rule(user=st.sampled_from(["ann", "bob"]), channel=CHANNELS)
    def remove_user(self, user: str, channel: str) -> None:
        """All connections of a user leave a channel and get `channel:removed`."""
        inside = [peer for peer in self.connected if peer.user == user and channel in peer.views]
        for peer in self.connected:
            peer.listen()
        assert self.everywhere(lambda: self.presence.remove(channel, user)) == len(inside)
        self.settle()
        for peer in inside:
            told = [event for event in self.hear(peer, bool) if event["type"] == "channel:removed"]
            assert [(event["channel"], event["code"]) for event in told] == [(channel, "REMOVED")]
            del peer.views[channel]

    def everywhere(self, call: Callable[[], int]) -> int:
        """Make a call that takes effect in every worker."""
        with self.app.app_context():
            return call()

    @rule(user=st.sampled_from(["ann", "bob"]))
    def disconnect_user(self, user: str) -> None:
        assert self.disconnect_everywhere(user) == sum(peer.user == user for peer in self.connected)
        self.settle()
        self.connected = [peer for peer in self.connected if peer.user != user]

    def disconnect_everywhere(self, user: str) -> int:
        return self.everywhere(lambda: self.presence.disconnect(user_id=user))

    @rule()
    def expire(self) -> None:
        """A day later every token has expired, which closes the connections with a token."""
        for app in self.apps:
            hub = app.extensions["presence.service"].hub
            if hub.current_loop is not None:
                hub.clock.advance(86400)
                hub.tick()
        self.settle()
        self.connected = [peer for peer in self.connected if peer.user is None]

    def hear(self, peer: Peer, _enough: Callable[[list[Any]], bool]) -> list[Any]:
        """The events that `peer` has got. A subclass with several workers waits until `_enough(events)` is true,
        because another worker may send an event a moment later."""
        return peer.listen()

    def settle(self, first: int = 0) -> None:
        """Run the callbacks that wait on the loops."""
        for app in self.apps[first:]:
            loop = app.extensions["presence.service"].hub.current_loop
            if isinstance(loop, InlineLoop):
                loop.settle()

    @invariant()
    def every_view_equals_the_member_list(self) -> None:
        with self.app.app_context():
            for peer in self.connected:
                member_lists = {
                    channel: {member.id: member.to_dict() for member in self.presence.get_channel_members(channel)}
                    for channel in peer.views
                }
                self.hear(peer, lambda _, peer=peer, member_lists=member_lists: peer.views == member_lists)  # type: ignore[misc]
                assert peer.views == member_lists
                self.check_names_and_roles(member_lists)

    def check_names_and_roles(self, member_lists: dict[str, dict[str, Any]]) -> None:
        """Names come from the login, and a role in presence-b from the guard, if it gives one."""
        for channel, members in member_lists.items():
            for member in members.values():
                assert member["name"] == member["id"].title()
                owned = self.owned_by_user.get(member["id"], {}) if channel == "presence-b" else {}
                assert "role" not in owned or member.get("role") == owned["role"]

    @invariant()
    def channels_and_counts_match_the_open_connections(self) -> None:
        inside = {channel for peer in self.connected for channel in peer.views}
        with self.app.app_context():
            assert {channel.name for channel in self.presence.list_channels()} == inside
            assert self.presence.get_channel_stats().connections == len(self.connected)
            for channel in inside:
                present = [peer for peer in self.connected if channel in peer.views]
                found = self.presence.get_channel(channel)
                assert found is not None
                counted = {peer.user for peer in present} if channel.startswith("presence-") else present
                assert found.member_count == len(counted)

    def teardown(self) -> None:
        for peer in self.connected:
            peer.stack.close()
        with self.app.app_context():
            assert self.presence.list_channels() == []
            assert self.presence.get_channel_stats().connections == 0


class LateConnectionMachine(ConnectionMachine):
    """The same with a backend whose changes are settled later."""

    def new_app(self, more: dict[str, Any]) -> Flask:
        def open_late(_url: str, **_options: Any) -> LateBackend:
            return LateBackend(MAX_INFO, lambda happen: self.service.hub.loop.spawn(happen), self.settle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(service, "open_backend", open_late)
            return super().new_app(more)


TestConnections = ConnectionMachine.TestCase
TestConnections.settings = settings(max_examples=at_effort(40), stateful_step_count=40, deadline=None)
TestConnectionsWithLateChanges = LateConnectionMachine.TestCase
TestConnectionsWithLateChanges.settings = settings(max_examples=at_effort(40), stateful_step_count=40, deadline=None)

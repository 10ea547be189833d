"""The roster: snapshots and changes agree, whatever happens."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flask_presence.domain.channels import ChannelName
from flask_presence.domain.errors import JoinFailed, RequestError, UpdateFailed
from flask_presence.domain.members import RESERVED_KEYS, Member, OwnedInfo, User
from flask_presence.domain.roster import Change, Joiner, Roster

from ..support.effort import at_effort

MAX_INFO, MAX_MEMBERS = 60, 2
USERS = [User("ann", name="Ann", avatar="ann.png"), User("bob", email="bob@example.com"), User("cy")]
CLIENTS = {f"{user.id}-{tab}": user for user in USERS for tab in range(2 if user.id != "cy" else 1)}
CHANNELS = [ChannelName(name) for name in ("presence-a", "presence-b", "private-a")]
KEYS = st.sampled_from(["name", "avatar", "x", "y"])
VALUES = st.one_of(st.none(), st.booleans(), st.integers(0, 1), st.text("ab", max_size=20), st.lists(st.none()))
INFO = st.dictionaries(KEYS, VALUES, max_size=3)
OWNED = st.dictionaries(KEYS, st.none() | st.text("AB", max_size=20), max_size=2)

DELAYS = st.just(0) | st.integers(0, 5)
"""Steps between a question to a guard and its verdict."""


class Observer:
    """A connection in a channel: its snapshot, with the changes since then."""

    def __init__(self, members: tuple[Member, ...]) -> None:
        self.view = {member.id: member for member in members}

    def hear(self, change: Change) -> None:
        present = change.member.id in self.view
        assert present == (change.kind != "joined"), f"{change.kind} of somebody who was{' not' * (not present)} there"
        if change.kind == "left":
            assert self.view.pop(change.member.id) == change.member
        else:
            self.view[change.member.id] = change.member


class RosterMachine(RuleBasedStateMachine):
    """Joins, leaves and updates in any order; each observer's view must stay the roster's list."""

    def __init__(self) -> None:
        super().__init__()
        self.roster = Roster(MAX_INFO, MAX_MEMBERS)
        self.now = datetime(2024, 1, 15, tzinfo=timezone.utc)
        self.observers: dict[tuple[str, str], Observer] = {}
        self.in_grace: set[tuple[str, str]] = set()
        self.said: dict[tuple[str, str], dict[str, Any]] = {}
        self.owned: dict[tuple[str, str], dict[str, Any]] = {}
        self.owned_at: dict[tuple[str, str], int] = {}
        self.clock = 10

    def verdict(self, owned: dict[str, Any], delay: int) -> OwnedInfo:
        """A verdict that was asked for some moments ago, and arrives now."""
        self.clock += 1
        return OwnedInfo(owned, self.clock - delay, self.clock)

    def say(self, channel: str, user: User, info: dict[str, Any]) -> None:
        """The model of what clients say: they cannot set what the login knows or a guard owns."""
        said = self.said.setdefault((channel, user.id), {})
        owned = self.owned[channel, user.id]
        for key, value in info.items():
            known = {"name": user.name, "avatar": user.avatar}.get(key) is not None
            if not known and key not in owned:
                said[key] = value

    def attempt(self, operation: Callable[[], Any]) -> Any:
        before = self.state()
        self.now += timedelta(seconds=1)
        try:
            return operation()
        except RequestError:
            assert self.state() == before, "an operation that raised has changed something"
            return None

    def state(self) -> Any:
        return [(channel, self.roster.get(channel)) for channel in CHANNELS], self.roster.counts()

    def tell(self, channel: str, change: Change | None, but: str) -> None:
        for (where, client_id), observer in self.observers.items():
            if change is not None and where == channel and client_id != but:
                observer.hear(change)

    @rule(
        client_id=st.sampled_from(sorted(CLIENTS)),
        channel=st.sampled_from(CHANNELS),
        info=st.none() | INFO,
        owned=st.just({}) | OWNED,
        delay=DELAYS,
    )
    def join(
        self,
        client_id: str,
        channel: ChannelName,
        info: dict[str, Any] | None,
        owned: dict[str, Any],
        delay: int,
    ) -> None:
        user, verdict = CLIENTS[client_id], self.verdict(owned, delay)
        if not any(member.id == user.id for member in self.roster.members(channel)):
            for model in (self.said, self.owned, self.owned_at):
                model.pop((channel, user.id), None)
        outcome = self.attempt(lambda: self.roster.join(Joiner(channel, client_id, user, info, self.now, verdict)))
        if outcome is None:
            return
        assert channel.type != "presence" or len(outcome.members) <= MAX_MEMBERS
        if channel.type == "presence":
            self.own_and_say(channel, user, verdict, info or {})
        assert outcome.is_new == ((channel, client_id) not in self.observers)
        self.tell(channel, outcome.change, client_id)
        self.observers[channel, client_id] = Observer(outcome.members or ())
        self.in_grace.discard((channel, CLIENTS[client_id].id))
        if channel.type == "presence":
            assert outcome.me in outcome.members

    def own_and_say(self, channel: str, user: User, verdict: OwnedInfo, info: dict[str, Any]) -> None:
        """The model of what a guard owns: of two verdicts, the one that was asked for later counts."""
        place = channel, user.id
        said = self.said.setdefault(place, {})
        self.owned_at.setdefault(place, int(verdict.asked_at))
        if verdict.asked_at >= self.owned_at[place]:
            if verdict.info or self.owned.get(place):
                self.owned_at[place] = int(verdict.asked_at)
            self.owned[place] = dict(verdict.info)
        for key in self.owned[place]:
            said.pop(key, None)
        self.say(channel, user, info)

    @rule(client_id=st.sampled_from(sorted(CLIENTS)), channel=st.sampled_from(CHANNELS), owned=OWNED, delay=DELAYS)
    def recheck(self, client_id: str, channel: ChannelName, owned: dict[str, Any], delay: int) -> None:
        """A guard owns something else, or nothing any longer."""
        verdict = self.verdict(owned, delay)
        outcome = self.attempt(lambda: self.roster.update(channel, client_id, {}, self.now, verdict))
        if outcome is None:
            return
        self.own_and_say(channel, CLIENTS[client_id], verdict, {})
        if outcome.change is not None:
            self.observers[channel, client_id].hear(outcome.change)
        self.tell(channel, outcome.change, client_id)

    @rule(client_id=st.sampled_from(sorted(CLIENTS)), channel=st.sampled_from(CHANNELS), hold=st.booleans())
    def leave(self, client_id: str, channel: ChannelName, hold: bool) -> None:
        was_in = self.observers.get((channel, client_id))
        change = self.attempt(lambda: self.roster.leave(channel, client_id, grace=hold))
        if was_in is None:
            assert change is None
            return
        del self.observers[channel, client_id]
        place = (channel, CLIENTS[client_id].id)
        others = {(where, CLIENTS[other].id) for where, other in self.observers}
        if hold and channel.type == "presence" and place not in others:
            self.in_grace.add(place)
        assert not (change and place in self.in_grace)
        self.tell(channel, change, client_id)

    @rule(user=st.sampled_from(USERS), channel=st.sampled_from(CHANNELS))
    def release(self, user: User, channel: ChannelName) -> None:
        change = self.attempt(lambda: self.roster.end_grace(channel, user.id))
        assert (change is not None) == ((channel, user.id) in self.absent_in_grace())
        self.in_grace.discard((channel, user.id))
        self.tell(channel, change, "")

    def absent_in_grace(self) -> set[tuple[str, str]]:
        """The users in a grace period who have no connection."""
        present = {(channel, CLIENTS[client_id].id) for channel, client_id in self.observers}
        return {place for place in self.in_grace if place not in present}

    @rule(client_id=st.sampled_from(sorted(CLIENTS)), channel=st.sampled_from(CHANNELS), info=INFO)
    def update(self, client_id: str, channel: ChannelName, info: dict[str, Any]) -> None:
        outcome = self.attempt(lambda: self.roster.update(channel, client_id, info, self.now))
        if outcome is None:
            return
        self.say(channel, CLIENTS[client_id], info)
        if outcome.change is not None:
            self.observers[channel, client_id].hear(outcome.change)
            assert outcome.member.updated_at == self.now
        self.tell(channel, outcome.change, client_id)

    @invariant()
    def every_view_is_the_list(self) -> None:
        for (channel, _), observer in self.observers.items():
            assert observer.view == {member.id: member for member in self.roster.members(channel)}

    @invariant()
    def members_are_the_users_of_the_connections(self) -> None:
        for channel in CHANNELS:
            inside = [client_id for where, client_id in self.observers if where == channel]
            users = {CLIENTS[client_id].id for client_id in inside}
            users |= {user_id for where, user_id in self.absent_in_grace() if where == channel}
            found = self.roster.get(channel)
            assert (found is not None) == bool(users)
            if found is None:
                continue
            assert found.member_count == (len(users) if channel.type == "presence" else len(inside))
            for member in found.members or ():
                assert member.client_id in CLIENTS
                user = next(one for one in USERS if one.id == member.id)
                said = {key: value for key, value in self.said[channel, user.id].items() if value is not None}
                owned = self.owned[channel, user.id]
                assert len(json.dumps(said, separators=(",", ":"))) <= MAX_INFO
                shown = {"name": text(said.get("name")), "avatar": text(said.get("avatar"))}
                shown |= {key: value for key, value in (("name", user.name), ("avatar", user.avatar)) if value}
                shown |= {key: owned[key] for key in shown if key in owned}
                assert member.name == (shown["name"] if shown["name"] is not None else "Anonymous")
                assert member.avatar == shown["avatar"]
                mixed = {key: value for key, value in (said | owned).items() if value is not None}
                others = {key for key in mixed if key not in ("name", "avatar")}
                assert {key: member.info[key] for key in others} == {key: mixed[key] for key in others}
                assert set(member.to_dict()) - others <= {"id", "clientId", "joinedAt", "name", "avatar", "updatedAt"}

    @invariant()
    def members_stand_in_order_of_joining(self) -> None:
        for channel in CHANNELS:
            joined = [member.joined_at for member in self.roster.members(channel)]
            assert joined == sorted(joined)


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


TestRoster = RosterMachine.TestCase
TestRoster.settings = settings(max_examples=at_effort(70), stateful_step_count=50, deadline=None)

NOW = datetime(2024, 1, 15, 10, 30, tzinfo=timezone.utc)
ROOM = ChannelName("presence-room")


def test_changing_zero_to_false_is_a_change() -> None:
    """Values are compared as JSON."""
    roster = Roster(100)
    roster.join(Joiner(ROOM, "1", USERS[0], {"x": 0}, NOW))
    assert roster.update(ROOM, "1", {"x": False}, NOW).change is not None
    assert roster.update(ROOM, "1", {"x": False}, NOW).change is None


def test_another_order_of_keys_is_no_change() -> None:
    roster = Roster(100)
    roster.join(Joiner(ROOM, "1", USERS[0], {"x": {"a": 1, "b": 2}}, NOW))
    assert roster.update(ROOM, "1", {"x": {"b": 2, "a": 1}}, NOW).change is None


def test_a_merge_that_is_too_large_raises_and_changes_nothing() -> None:
    roster = Roster(20)
    roster.join(Joiner(ROOM, "1", USERS[0], {"a": "x" * 12}, NOW))
    for operation, error in (
        (lambda: roster.update(ROOM, "1", {"b": 1}, NOW), UpdateFailed),
        (lambda: roster.join(Joiner(ROOM, "2", USERS[0], {"b": 1}, NOW)), JoinFailed),
        (lambda: roster.join(Joiner(ROOM, "3", USERS[1], {"a": "x" * 14}, NOW)), JoinFailed),
    ):
        try:
            operation()
        except error as problem:
            assert "20 bytes" in problem.message
        else:
            raise AssertionError("it was let in")
    assert roster.counts() == (1, {"public": 0, "private": 0, "presence": 1})


def test_a_member_on_the_wire_begins_with_the_fields_of_the_server() -> None:
    roster = Roster(1000)
    outcome = roster.join(Joiner(ROOM, "client", USERS[1], {"status": "here"}, NOW))
    assert isinstance(outcome.me, Member)
    assert outcome.me.to_dict() == {
        "id": "bob",
        "clientId": "client",
        "joinedAt": "2024-01-15T10:30:00.000Z",
        "name": "Anonymous",
        "status": "here",
    }
    assert not RESERVED_KEYS & set(outcome.me.info)


def test_a_full_channel_takes_members_with_more_tabs_only() -> None:
    roster = Roster(100, max_members=2)
    ann, bob, cy = USERS
    roster.join(Joiner(ROOM, "1", ann, None, NOW))
    roster.join(Joiner(ROOM, "2", bob, None, NOW))
    with pytest.raises(JoinFailed, match="2 members, which is the maximum"):
        roster.join(Joiner(ROOM, "3", cy, None, NOW))
    assert roster.join(Joiner(ROOM, "4", ann, None, NOW)).members is not None
    assert roster.leave(ROOM, "2", grace=True) is None
    with pytest.raises(JoinFailed):
        roster.join(Joiner(ROOM, "3", cy, None, NOW))  # bob is still listed
    roster.end_grace(ROOM, "bob")
    assert roster.join(Joiner(ROOM, "3", cy, None, NOW)).change is not None
    assert roster.join(Joiner(ChannelName("room"), "5", cy, None, NOW)).members is None

"""The protocol, without sockets."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import pytest

from qemu_odx.server.monitor.command import Command, Later
from qemu_odx.server.monitor.conversation import Conversation
from qemu_odx.server.monitor.errors import MonitorError, not_found

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


@dataclass
class Part:
    """A part."""

    size: int
    colour: Literal["red", "green"] = "red"


@dataclass
class Shelf:
    """What the commands act on."""

    got: list[object] = field(default_factory=list)
    waiting: list[Callable[[object], None]] = field(default_factory=list)


def put(shelf: Shelf, the_name: str, parts: list[Part], weight: float = 1.5, *, fragile: bool = False) -> int:
    """Takes every kind of argument."""
    shelf.got.append((the_name, parts, weight, fragile))
    return len(shelf.got)


def find(_shelf: Shelf, name: str) -> Part:
    """Fails, or succeeds."""
    if name == "bug":
        raise ZeroDivisionError
    if name != "here":
        raise not_found("part", name, ["here"])
    return Part(3)


def wait(shelf: Shelf) -> Later[int]:
    """Is answered later."""
    return Later(shelf.waiting.append)


def qmp_capabilities(_shelf: Shelf) -> None:
    """As everywhere."""


COMMANDS = {
    name: Command(name, handler)
    for name, handler in (
        ("put", put),
        ("find", find),
        ("wait", wait),
        ("qmp_capabilities", qmp_capabilities),
    )
}
HELLO = '{"execute": "qmp_capabilities"}'


class Talk:
    """A conversation and what the client reads of it."""

    def __init__(self, *said: str) -> None:
        self.shelf = Shelf()
        self.out = b""
        self.dropped = self.resumed = 0
        self.conversation = Conversation(
            COMMANDS, self.shelf, send=self._send, drop=self._drop, resume=self._resume
        )
        self.conversation.greet()
        for line in said:
            self.say(line)

    def say(self, line: str | bytes) -> None:
        """Send, and let it be executed."""
        self.conversation.feed(line.encode() if isinstance(line, str) else line)
        while self.conversation.serve():
            pass

    @property
    def heard(self) -> list[dict[str, Any]]:
        """Each message so far."""
        return [json.loads(line) for line in self.out.split(b"\r\n") if line]

    def _send(self, data: bytes) -> None:
        self.out += data

    def _drop(self) -> None:
        self.dropped += 1

    def _resume(self) -> None:
        self.resumed += 1


def test_the_greeting_is_that_of_a_qmp_server() -> None:
    """As in QEMU's qmp-spec: version and capabilities."""
    (greeting,) = Talk().heard
    assert greeting["QMP"]["capabilities"] == []
    assert set(greeting["QMP"]["version"]["qemu"]) == {"major", "minor", "micro"}
    assert greeting["QMP"]["version"]["package"].startswith("qemu-odx ")


def test_nothing_goes_before_the_negotiation_and_none_goes_twice() -> None:
    """The error class is what clients look at."""
    talk = Talk('{"execute": "find", "arguments": {"name": "here"}, "id": 1}', HELLO, HELLO)
    _, early, agreed, again = talk.heard
    assert early["error"]["class"] == again["error"]["class"] == "CommandNotFound"
    assert "qmp_capabilities" in early["error"]["desc"]
    assert early["id"] == 1
    assert agreed == {"return": {}}
    assert talk.conversation.ready


@pytest.mark.parametrize("tag", ['"x"', "17", "null", '{"deep": [1]}'])
def test_ids_come_back(tag: str) -> None:
    """Whatever they are, with results and with errors."""
    talk = Talk(HELLO, f'{{"execute": "find", "arguments": {{"name": "here"}}, "id": {tag}}}')
    talk.say(f'{{"execute": "nonsense", "id": {tag}}}')
    assert [message["id"] for message in talk.heard[2:]] == [json.loads(tag)] * 2
    assert talk.heard[2]["return"] == {"size": 3, "colour": "red"}


def test_arguments_reach_the_handler() -> None:
    """Dashes become underscores; what is left out has its default."""
    given = {"the-name": "a", "parts": [{"size": 1}, {"size": 2, "colour": "green"}], "fragile": True}
    talk = Talk(HELLO, json.dumps({"execute": "put", "arguments": given}))
    assert talk.heard[-1] == {"return": 1}
    assert talk.shelf.got == [("a", given["parts"], 1.5, True)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "'the-name' is missing"),
        ({"the-name": "a", "parts": [], "more": 1}, "'more' is unexpected: known are the-name, parts"),
        ({"the_name": "a", "parts": []}, "'the_name' is unexpected"),
        ({"the-name": 1, "parts": []}, "'the-name' must be a string"),
        ({"the-name": "\0", "parts": []}, "without NUL"),
        ({"the-name": "\ud800", "parts": []}, "surrogates"),
        ({"the-name": "a", "parts": {}}, "'parts' must be an array"),
        ({"the-name": "a", "parts": [1]}, "'parts[0]' must be an object"),
        ({"the-name": "a", "parts": [{}]}, "'parts[0].size' is missing"),
        ({"the-name": "a", "parts": [{"size": True}]}, "'parts[0].size' must be a whole number"),
        ({"the-name": "a", "parts": [{"size": 1.0}]}, "must be a whole number"),
        ({"the-name": "a", "parts": [{"size": 1 << 64}]}, "must be a whole number of 64 bits"),
        ({"the-name": "a", "parts": [{"size": 1, "colour": "blue"}]}, "must be one of red, green"),
        ({"the-name": "a", "parts": [], "weight": "x"}, "'weight' must be a number"),
        ({"the-name": "a", "parts": [], "weight": False}, "'weight' must be a number"),
        ({"the-name": "a", "parts": [], "fragile": 1}, "'fragile' must be true or false"),
        ([], "'arguments' must be an object"),
    ],
)
def test_wrong_arguments_never_reach_the_handler(arguments: object, said: str) -> None:
    """The sentence names the member."""
    talk = Talk(HELLO, json.dumps({"execute": "put", "arguments": arguments}))
    assert talk.heard[-1]["error"]["class"] == "GenericError"
    assert said in talk.heard[-1]["error"]["desc"]
    assert talk.shelf.got == []


@pytest.mark.parametrize(
    ("line", "error_class", "said"),
    [
        ('{"execute": "find", "arguments": {"name": "x"}}', "DeviceNotFound", "there are here"),
        ('{"execute": "find", "arguments": {"name": "bug"}}', "GenericError", "internal error"),
        ('{"execute": "nonsense"}', "CommandNotFound", "query-commands"),
        ('{"execute": 1}', "GenericError", "'execute'"),
        ("{}", "GenericError", "'execute'"),
        ('{"exec-oob": "find"}', "GenericError", "'exec-oob' is unexpected"),
        ("nonsense\n", "GenericError", "JSON parse error"),
    ],
)
def test_errors_have_a_class_and_a_sentence(line: str, error_class: str, said: str) -> None:
    """And the conversation goes on."""
    talk = Talk(HELLO, line)
    assert talk.heard[-1]["error"]["class"] == error_class
    assert said in talk.heard[-1]["error"]["desc"]
    talk.say('{"execute": "find", "arguments": {"name": "here"}}')
    assert "return" in talk.heard[-1]


def test_commands_behind_one_that_waits_wait_too() -> None:
    """Answers come in the order of the commands."""
    talk = Talk(HELLO, '{"execute": "wait", "id": 1}', '{"execute": "find", "arguments": {"name": "here"}}')
    assert len(talk.heard) == 2
    assert talk.conversation.busy
    talk.shelf.waiting[0](42)
    assert talk.heard[2:] == [{"return": 42, "id": 1}]
    assert talk.resumed == 1
    talk.say("")
    assert "size" in talk.heard[-1]["return"]


def test_a_command_that_waits_may_fail() -> None:
    """As one that does not."""
    talk = Talk(HELLO, '{"execute": "wait", "id": 1}')
    talk.shelf.waiting[0](MonitorError("the disk is on fire: put it out"))
    assert talk.heard[-1] == {
        "error": {"class": "GenericError", "desc": "the disk is on fire: put it out"},
        "id": 1,
    }


def test_who_sends_no_end_is_hung_up_on() -> None:
    """After a word about it."""
    talk = Talk(HELLO)
    talk.say(b'{"a": "' + b"x" * (2 << 20))
    assert "longer than" in talk.heard[-1]["error"]["desc"]
    assert talk.dropped == 1

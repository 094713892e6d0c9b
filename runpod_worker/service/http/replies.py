"""Replies as values: routes return them, `sockets` or an in-process caller delivers them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path

import msgspec

from runpod_worker.core.errors import ServiceRefusal

JSON = "application/json"
_JSON_HEAD = b"Content-Type: application/json\r\n"

OnLost = Callable[[], Awaitable[object]]
"""Awaited when a reply did not reach its caller, to undo the effect of the reply."""


Step = Callable[[float | None], Awaitable["Reply | None"]]
"""Waits up to this many seconds for the reply. With None it returns the reply without waiting."""

UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""Headers that tell proxies to pass on each piece of a reply at once."""


class Reply(msgspec.Struct):
    """A whole reply. `head` holds the headers as bytes, since most of them never change."""

    status: int
    head: bytes
    content: bytes
    on_lost: OnLost | None = None


class StreamReply(msgspec.Struct):
    """A reply of status 200 that is sent piece by piece. Hanging up cancels `pieces` at once."""

    headers: Mapping[str, str]
    pieces: AsyncIterator[bytes]
    on_lost: OnLost | None = None


class FileReply(msgspec.Struct):
    """A reply of status 200 with a file of this machine; a caller may ask for a range of it."""

    headers: Mapping[str, str]
    path: Path


Answer = Reply | StreamReply | FileReply
"""The reply of a route."""


def render_head(headers: Mapping[str, str]) -> bytes:
    """Headers as `Reply` has them."""
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("utf-8", "surrogateescape")


def json_reply(content: bytes, more: bytes = b"", *, on_lost: OnLost | None = None) -> Reply:
    """200 with JSON; `more` are further headers."""
    return Reply(200, _JSON_HEAD + more, content, on_lost=on_lost)


def render_refusal(exc: ServiceRefusal) -> Reply:
    """A refusal in the platform's error envelope (protocol A.1)."""
    content = msgspec.json.encode({"status": exc.status, "title": HTTPStatus(exc.status).phrase, "detail": str(exc)})
    return Reply(exc.status, _JSON_HEAD, content)


async def long_poll(wait_s: float, keepalive_s: float, step: Step, *, on_lost: OnLost | None = None) -> Answer:
    """A reply that may take long: the first that `step` returns; after `wait_s`, that of `step(None)`.

    Sends a space, which JSON ignores, after each `keepalive_s` without a byte, so that proxies keep the connection.
    """
    reply = await step(min(wait_s, keepalive_s))
    if reply is None and wait_s <= keepalive_s:
        reply = await step(None)
    if reply is not None:
        reply.on_lost = on_lost
        return reply
    pieces = _long_poll_pieces(wait_s - keepalive_s, keepalive_s, step)
    return StreamReply({"Content-Type": JSON, **UNBUFFERED}, pieces, on_lost=on_lost)


async def _long_poll_pieces(wait_s: float, keepalive_s: float, step: Step) -> AsyncIterator[bytes]:
    reply = None
    while reply is None:
        if wait_s > 0:
            yield b" "
        reply = await step(min(wait_s, keepalive_s) if wait_s > 0 else None)
        wait_s -= keepalive_s
    yield reply.content

"""How messages travel between the agent and an executor: over one Unix socket pair.

`AgentChannel` is the asyncio end (callbacks, many messages per wake-up); `ExecutorChannel` is blocking and thread-safe.
A message is four bytes of length (little endian) and that many bytes of MessagePack, bodies inside.

Bodies do not travel as a memfd passed by SCM_RIGHTS: measurements show that to be slower at every size. Round trips
with uvloop on one end, 2 cores, inline / memfd: 64 KB 53 / 131 us, 512 KB 0.35 / 0.60 ms, 1 MB 0.45 / 1.15 ms,
8 MB 7.2 / 10.9 ms. Most of the difference is the cost of fresh pages, which each new memfd pays and a reused buffer
does not.

The other process may die at any byte: the end of the stream, inside a message or not, closes the channel. Bytes that
are no message raise `ChannelGarbled`, and the channel is unusable from then on.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from runpod_worker.core.dispatch.messages import Done, ToAgent, ToExecutor
from runpod_worker.core.errors import ChannelClosed, ChannelGarbled
from runpod_worker.core.text import encodable

READ_SIZE = 256 * 1024
"""Bytes per read. A Unix socket buffers this much by default, so one read empties it."""

MAX_KEPT_BUFFER = 32 * 1024 * 1024
"""Bytes. A buffer that grew for a long message is reused up to this size, because fresh pages cost more than memory."""

MAX_MESSAGE = 256 * 1024 * 1024
"""Bytes. A longer message counts as garbage and makes the channel unusable."""

_LENGTH = struct.Struct("<I")
_Received = TypeVar("_Received")
_encoder = msgspec.msgpack.Encoder()


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, one for each end."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


class ExecutorChannel:
    """The executor's blocking end. Any thread may send; one thread iterates over received messages."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._buffer: _ReadBuffer[ToExecutor] = _ReadBuffer(msgspec.msgpack.Decoder[ToExecutor](ToExecutor).decode)
        self._send_lock = threading.Lock()
        self._pid = os.getpid()

    def send(self, *messages: ToAgent) -> None:
        """Send the messages in order, without others in between; wait while the agent does not read.

        Raises:
            ChannelClosed: the agent has closed its end.
        """
        if os.getpid() != self._pid:  # a child that the handler forked must not answer for the job
            os._exit(0)
        data = _encode(messages)
        with self._send_lock:
            try:
                self._sock.sendall(data)
            except OSError as error:
                raise ChannelClosed from error

    def __iter__(self) -> Iterator[ToExecutor]:
        """Yield the agent's messages until its end of the channel is closed.

        Raises:
            ChannelGarbled: the received bytes are no message.
        """
        with suppress(OSError):  # reset by the other end, or closed by this one
            while self._buffer.fill(self._sock):
                yield from self._buffer.messages()

    def close(self) -> None:
        """Close the socket, which ends the iteration in the reading thread."""
        with suppress(OSError):  # the other end closed first
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class AgentChannel:
    """The agent's end, on the running loop (asyncio's or uvloop's).

    `on_message` is called for each message. This end always reads: each job's flow-control window limits what the
    executor sends (worker/executor/window.py), so a slow stream delays no stop and no outcome.
    `on_closed` is called once: with None when the executor closes its end, or with the error that made the channel
    unusable, which includes an error raised by `on_message`. After `close` neither is called.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_message: Callable[[ToAgent], None],
        on_closed: Callable[[Exception | None], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._buffer: _ReadBuffer[ToAgent] = _ReadBuffer(msgspec.msgpack.Decoder[ToAgent](ToAgent).decode)
        self._unsent: deque[memoryview] = deque()
        self._open = True
        self._writing = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._on_readable)

    def send(self, *messages: ToExecutor) -> None:
        """Send the messages in order, without waiting; bytes that the socket does not accept yet stay in memory.

        They are dropped when the channel is closed. The jobs assigned to an executor bound the memory.
        """
        if not self._open:
            return
        self._unsent.append(memoryview(_encode(messages)))
        if not self._writing:
            self._flush()

    def close(self) -> None:
        """Close the socket and drop unsent messages; the executor's iteration ends."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._discard()
        self._sock.close()

    def _on_readable(self) -> None:
        try:
            more = self._buffer.fill(self._sock)
        except BlockingIOError:
            return
        except OSError:
            more = False
        error = self._dispatch()
        if self._open and (error or not more):
            self.close()
            self._on_closed(error)

    def _dispatch(self) -> Exception | None:
        try:
            for message in self._buffer.messages():
                self._on_message(message)
                if not self._open:
                    break
        except Exception as error:
            return error
        return None

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._remove_sent(self._sock.send(self._unsent[0]))
        except BlockingIOError:
            self._set_writing(True)
        except OSError:  # the reader sees the end of the stream, after the last messages the executor sent
            self._discard()
        else:
            self._set_writing(False)

    def _remove_sent(self, count: int) -> None:
        if count == len(self._unsent[0]):
            self._unsent.popleft()
        else:
            self._unsent[0] = self._unsent[0][count:]

    def _set_writing(self, writing: bool) -> None:
        if writing and not self._writing:
            self._loop.add_writer(self._sock, self._flush)
        elif self._writing and not writing:
            self._loop.remove_writer(self._sock)
        self._writing = writing

    def _discard(self) -> None:
        self._set_writing(False)
        self._unsent.clear()


def _encode(messages: Iterable[ToAgent | ToExecutor]) -> bytearray:
    data = bytearray()
    for message in messages:
        start = len(data)
        data += bytes(_LENGTH.size)
        try:
            _encoder.encode_into(message, data, start + _LENGTH.size)
        except Exception as error:
            _encoder.encode_into(_repaired(message, error), data, start + _LENGTH.size)
        _LENGTH.pack_into(data, start, len(data) - start - _LENGTH.size)
    return data


def _repaired(message: ToAgent | ToExecutor, error: Exception) -> ToAgent | ToExecutor:
    """A message in the place of one that cannot be encoded, so that its job ends and others are not affected."""
    if isinstance(error, UnicodeEncodeError):  # texts come from handlers, and from names of files
        texts = {name: value for name, value in msgspec.structs.asdict(message).items() if isinstance(value, str)}
        return msgspec.structs.replace(message, **{name: encodable(text) for name, text in texts.items()})
    if isinstance(message, Done):
        return Done(key=message.key, error=f"the outcome cannot be sent: {type(error).__name__}: {error}")
    raise error


class _ReadBuffer(Generic[_Received]):
    """Turns bytes from a socket into messages."""

    def __init__(self, decode: Callable[[memoryview], _Received]) -> None:
        self._decode = decode
        self._data = memoryview(bytearray(READ_SIZE))
        self._start = self._end = 0

    def fill(self, sock: socket.socket) -> bool:
        """Read once. False: the stream has ended."""
        self._make_room()
        count = sock.recv_into(self._data[self._end :])
        self._end += count
        return count > 0

    def messages(self) -> Iterator[_Received]:
        """Yield each complete message."""
        while self._end - self._start >= _LENGTH.size:
            first = self._start + _LENGTH.size
            last = first + self._length()
            if self._end < last:
                return
            self._start = last
            try:
                message = self._decode(self._data[first:last])
            except msgspec.MsgspecError as error:
                raise ChannelGarbled(f"expected a message: {error}") from error
            yield message

    def _length(self) -> int:
        length: int = _LENGTH.unpack_from(self._data, self._start)[0]
        if length > MAX_MESSAGE:
            raise ChannelGarbled(f"expected a message of at most {MAX_MESSAGE} bytes, got a length of {length}")
        return length

    def _make_room(self) -> None:
        """Leave room for one read, and for the whole of a message that has begun."""
        held = self._end - self._start
        if held == 0:
            self._start = self._end = 0
            if len(self._data) > MAX_KEPT_BUFFER:
                self._data = memoryview(bytearray(READ_SIZE))
            return
        needed = max(READ_SIZE, self._length() + _LENGTH.size if held >= _LENGTH.size else 0)
        if len(self._data) - self._start >= needed:
            return
        larger = self._data if len(self._data) >= needed else memoryview(bytearray(needed))
        larger[:held] = bytes(self._data[self._start : self._end])
        self._data, self._start, self._end = larger, 0, held

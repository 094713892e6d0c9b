import asyncio
import os
import socket
import struct
import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runpod_worker.core.dispatch.messages import Chunks, Done, Run, Stop, ToAgent
from runpod_worker.core.errors import ChannelClosed, ChannelGarbled
from runpod_worker.worker.ipc import channel

WAIT_S = 30.0


class Agent:
    """An AgentChannel whose events can be awaited."""

    def __init__(self, sock: socket.socket) -> None:
        self.messages: asyncio.Queue[ToAgent] = asyncio.Queue()
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.channel = channel.AgentChannel(sock, on_message=self.messages.put_nowait, on_closed=self.ended.set_result)

    async def next(self) -> ToAgent:
        return await asyncio.wait_for(self.messages.get(), WAIT_S)

    async def end(self) -> Exception | None:
        return await asyncio.wait_for(self.ended, WAIT_S)


@pytest.fixture
def sockets():
    ours, theirs = channel.pair()
    yield ours, theirs
    ours.close()
    theirs.close()


async def test_frames_arrive_in_order_at_the_agent(sockets):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])
    sent = [Chunks(key="a", index=i, outputs=[b"1", b"22"]) for i in range(50)]

    executor.send(*sent[:20])
    executor.send(*sent[20:])

    assert [await agent.next() for _ in sent] == sent
    agent.channel.close()


async def test_a_message_that_cannot_be_encoded_fails_its_own_job_only(sockets):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])

    unsendable: Any = object()
    executor.send(Done(key="a", output=b"1"), Done(key="b", output=unsendable), Done(key="c", error="caf\udce9"))

    assert [await agent.next() for _ in range(3)] == [
        Done(key="a", output=b"1"),
        Done(key="b", error="the outcome cannot be sent: TypeError: Encoding objects of type object is unsupported"),
        Done(key="c", error="caf?"),
    ]
    agent.channel.close()


async def test_frames_arrive_in_order_at_the_executor(sockets):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])

    agent.channel.send(Run(key="a", body=b"{}", taken_at=1.5), Stop(key="a", reason="cancelled"))
    agent.channel.close()

    assert list(executor) == [Run(key="a", body=b"{}", taken_at=1.5), Stop(key="a", reason="cancelled")]


@pytest.mark.parametrize("size", [0, 1, channel.READ_SIZE - 20, channel.READ_SIZE, channel.READ_SIZE + 1, 3_000_000])
async def test_a_body_of_any_size_comes_back_as_it_was(sockets, size):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])
    body = os.urandom(size)

    def echo() -> None:
        for run in executor:
            assert isinstance(run, Run)
            executor.send(Done(key=run.key, output=run.body), Done(key="next"))

    thread = threading.Thread(target=echo)
    thread.start()
    agent.channel.send(Run(key="a", body=body, taken_at=0.0))

    assert await agent.next() == Done(key="a", output=body)
    assert await agent.next() == Done(key="next")
    agent.channel.close()
    await asyncio.to_thread(thread.join, WAIT_S)


async def test_a_dead_executor_is_an_event_after_its_last_frames(sockets):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])

    executor.send(Done(key="last"))
    executor.close()

    assert await agent.next() == Done(key="last")
    assert await agent.end() is None


async def test_an_executor_killed_in_the_middle_of_a_frame_is_an_event(sockets):
    agent = Agent(sockets[0])
    code = "import os, socket, sys; os.write(int(sys.argv[1]), b'\\xff\\0\\0\\0half'); os.kill(os.getpid(), 9)"
    fd = sockets[1].fileno()

    child = subprocess.Popen([sys.executable, "-c", code, str(fd)], pass_fds=[fd])
    sockets[1].close()

    assert await agent.end() is None
    assert await asyncio.to_thread(child.wait, WAIT_S) == -9


async def test_sending_to_a_dead_agent_says_so(sockets):
    executor = channel.ExecutorChannel(sockets[1])
    sockets[0].close()

    assert list(executor) == []
    with pytest.raises(ChannelClosed):
        executor.send(Done(key="a"))


async def test_messages_to_a_dead_executor_are_dropped(sockets):
    agent = Agent(sockets[0])
    sockets[1].close()
    await agent.end()

    agent.channel.send(Stop(key="a", reason=""))

    assert not agent.channel._unsent


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack("<I", 3) + b"abc", struct.pack("<I", 2**31) + b"x"],
    ids=["http", "not-messagepack", "endless"],
)
async def test_garbage_is_a_clear_error_at_both_ends(garbage):
    ours, theirs = channel.pair()
    agent = Agent(ours)
    theirs.sendall(garbage)
    assert isinstance(await agent.end(), ChannelGarbled)
    theirs.close()

    ours, theirs = channel.pair()
    ours.sendall(garbage)
    executor = channel.ExecutorChannel(theirs)
    with pytest.raises(ChannelGarbled):
        list(executor)
    ours.close()
    executor.close()


async def test_a_frame_of_the_wrong_direction_is_garbage(sockets):
    agent = Agent(sockets[0])
    data = msgspec.msgpack.encode(Stop(key="a", reason="b"))

    sockets[1].sendall(struct.pack("<I", len(data)) + data)

    assert isinstance(await agent.end(), ChannelGarbled)


async def test_a_callback_that_raises_ends_the_channel_with_its_error(sockets):
    ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def refuse(message: ToAgent) -> None:
        raise OSError("disk full")

    channel.AgentChannel(sockets[0], on_message=refuse, on_closed=ended.set_result)
    channel.ExecutorChannel(sockets[1]).send(Done(key="a"))

    assert str(await asyncio.wait_for(ended, WAIT_S)) == "disk full"


async def test_messages_wait_in_memory_while_the_executor_does_not_read(sockets):
    agent = Agent(sockets[0])
    run = Run(key="a", body=bytes(1024 * 1024), taken_at=0.0)

    agent.channel.send(run, run)
    agent.channel.send(run)
    agent.channel.send(Stop(key="a", reason="x"))
    assert sum(map(len, agent.channel._unsent)) > 2 * 1024 * 1024

    received: list[object] = []
    reader = threading.Thread(target=lambda: received.extend(channel.ExecutorChannel(sockets[1])))
    reader.start()
    async with asyncio.timeout(WAIT_S):
        while agent.channel._unsent:
            await asyncio.sleep(0)
    agent.channel.close()
    await asyncio.to_thread(reader.join, WAIT_S)
    assert received == [run, run, run, Stop(key="a", reason="x")]


async def test_threads_may_send_at_the_same_time(sockets):
    agent, executor = Agent(sockets[0]), channel.ExecutorChannel(sockets[1])
    each, threads = 40, 4

    def push(name: str) -> None:
        for index in range(each):
            executor.send(Chunks(key=name, index=index, outputs=[bytes(20_000)]))

    running = [threading.Thread(target=push, args=(str(n),)) for n in range(threads)]
    for thread in running:
        thread.start()
    messages = [await agent.next() for _ in range(each * threads)]

    for name in map(str, range(threads)):
        assert [message.index for message in messages if isinstance(message, Chunks) and message.key == name] == list(
            range(each)
        )
    for thread in running:
        await asyncio.to_thread(thread.join, WAIT_S)
    agent.channel.close()


async def test_a_grown_buffer_is_kept_only_up_to_its_bound(sockets):
    buffer = channel._ReadBuffer(bytes)
    buffer._data = memoryview(bytearray(channel.MAX_KEPT_BUFFER + 1))
    sockets[0].send(b"x")

    buffer.fill(sockets[1])

    assert len(buffer._data) == channel.READ_SIZE


@settings(deadline=None, max_examples=100)
@given(st.lists(st.binary(max_size=300), min_size=1), st.lists(st.integers(1, 700), min_size=1))
def test_frames_survive_any_cutting_of_the_stream(bodies, cuts):
    messages = [Run(key=str(i), body=body, taken_at=0.0) for i, body in enumerate(bodies)]
    data = bytes(channel._encode(messages))
    ours, theirs = channel.pair()
    buffer = channel._ReadBuffer(msgspec.msgpack.Decoder(Run).decode)
    received = []
    position = turn = 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        ours.sendall(data[position : position + size])
        buffer.fill(theirs)
        received += buffer.messages()
        position, turn = position + size, turn + 1
    ours.close()
    theirs.close()

    assert received == messages

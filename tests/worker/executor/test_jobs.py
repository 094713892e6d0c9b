"""Jobs of each kind of handler: outputs, chunks, progress, errors."""

import json

import pytest

from runpod_worker.core.dispatch.messages import Chunks, Done, Progress, Run, Started, WindowUpdate

FOUR_KINDS = {
    "function": "def handler(job):\n    return job['input']['n'] * 2",
    "coroutine": "async def handler(job):\n    await asyncio.sleep(0)\n    return job['input']['n'] * 2",
    "generator": "def handler(job):\n    yield from range(job['input']['n'])",
    "async_generator": "async def handler(job):\n    for i in range(job['input']['n']):\n        yield i",
}


@pytest.mark.parametrize("kind", FOUR_KINDS)
@pytest.mark.parametrize("concurrency", [1, 3])
def test_each_kind_runs_jobs_one_done_each(start, kind, concurrency):
    executor = start(f"@worker.handler(concurrency={concurrency}, aggregate=True)\n{FOUR_KINDS[kind]}")
    assert executor.ready().kind == kind

    for n in range(30):
        executor.run(str(n), {"n": n})
    dones = [executor.until(Done) for _ in range(30)]

    for done in dones:
        n = int(done.key)
        expected = list(range(n)) if "generator" in kind else n * 2
        assert json.loads(done.output) == expected
        assert done.is_stream == ("generator" in kind)
        assert done.timings.input_ready <= done.timings.started <= done.timings.finished <= done.timings.encoded
    started = [message.key for message in executor.seen if isinstance(message, Started)]
    assert sorted(started) == sorted(map(str, range(30)))
    executor.exit()
    assert len([message for message in executor.seen if isinstance(message, Done)]) == 30


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
def test_chunks_arrive_complete_in_order_and_before_done(start, kind):
    executor = start(f"@worker.handler\n{FOUR_KINDS[kind]}")
    executor.ready()

    executor.run(value={"n": 5000})
    done = executor.until(Done)

    messages = [message for message in executor.seen if isinstance(message, Chunks)]
    outputs = [output for message in messages for output in message.outputs]
    assert outputs == [str(i).encode() for i in range(5000)]
    position = 0
    for message in messages:
        assert message.index == position
        position += len(message.outputs)
    assert done.output == b"[]"
    assert done.timings.first_chunk is not None


def test_the_first_chunk_does_not_wait_for_the_second(start):
    executor = start("""
        @worker.handler
        def handler(job):
            yield "first"
            time.sleep(60)
    """)
    executor.ready()
    executor.run()

    assert executor.until(Chunks).outputs == [b'"first"']


def test_progress_is_ordered_ends_with_the_latest_and_never_follows_done(start):
    executor = start("""
        @worker.handler
        def handler(job):
            for i in range(500):
                job.progress(i)
            threading.Thread(target=lambda: [job.progress("late") for _ in range(1000)]).start()
    """)
    executor.ready()
    for n in range(5):
        executor.run(str(n))
        executor.until(Done, str(n))
    executor.exit()

    for key in map(str, range(5)):
        mine = [message for message in executor.seen if getattr(message, "key", None) == key]
        assert isinstance(mine[-1], Done)
        values = [json.loads(message.value) for message in mine if isinstance(message, Progress)]
        numbers = [value for value in values if value != "late"]
        assert numbers == sorted(numbers)


def test_progress_that_is_not_json_raises_in_the_handler(start):
    executor = start("""
        @worker.handler
        def handler(job):
            job.progress({"step": [object()]})
    """)
    executor.ready()
    executor.run()

    assert executor.until(Done).error.startswith("progress.step[0] is an object")


@pytest.mark.parametrize("raised", ["SystemExit(0)", "KeyboardInterrupt()", "JobStopped('own')", "ValueError('no')"])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_whatever_a_handler_raises_fails_the_job_and_the_worker_goes_on(start, raised, kind):
    executor = start(f"""
        @worker.handler
        {kind} handler(job):
            if job["input"].get("ok"):
                return "fine"
            raise {raised}
    """)
    executor.ready()
    executor.run()
    error = json.loads(executor.until(Done).error)

    assert raised.partition("(")[0] in error["error_type"]
    assert error["worker_id"] == "worker-1"
    assert error["error_traceback"].count("File ") == 1
    assert executor.output("b", {"ok": True}) == "fine"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"id": "x"}', "job.input is missing"),
        (b"[1]", "expected object"),
        (b"{", "not JSON"),
        (b'{"id": "x", "input": {"steps": 0}}', "input.steps: expected int >= 1, got 0 (int)"),
        (b'{"id": "x", "input": {"steps": 7}}', "ZeroDivisionError"),
    ],
)
def test_a_bad_job_fails_at_once_while_another_one_runs(start, body, error):
    executor = start("""
        import msgspec
        from typing import Annotated
        class Input(msgspec.Struct):
            steps: Annotated[int, msgspec.Meta(ge=1)]
            def __post_init__(self):
                1 / (self.steps - 7)
        @worker.handler
        def handler(job: Job[Input]):
            time.sleep(60)
    """)
    executor.ready()
    executor.run("slow", {"steps": 1})
    executor.until(Started, "slow")

    executor.send(Run(key="bad", body=body, taken_at=0.0))

    assert error in executor.until(Done, "bad").error


def test_a_plain_function_is_treated_by_what_it_returned(start):
    executor = start("""
        async def coroutine(n): return n
        async def agen(n):
            for i in range(n): yield i
        def gen(n): yield from range(n)
        @worker.handler(aggregate=True)
        def handler(job):
            return {"c": coroutine, "a": agen, "g": gen}[job["input"]["what"]](3)
    """)
    assert executor.ready().kind == "function"

    assert executor.output("1", {"what": "c"}) == 3
    assert executor.output("2", {"what": "a"}) == [0, 1, 2]
    assert executor.output("3", {"what": "g"}) == [0, 1, 2]


def test_a_yielded_error_ends_the_stream_and_keeps_what_was_collected(start):
    executor = start("""
        @worker.handler(aggregate=True)
        def handler(job):
            yield 1
            yield {"error": {"code": 7}}
            yield 2
    """)
    executor.ready()
    executor.run()
    done = executor.until(Done)

    assert (done.error, done.output, done.is_stream) == ('{"code":7}', b"[1]", True)


def test_async_jobs_share_the_loop_of_the_model(start):
    executor = start("""
        @worker.model
        async def load():
            return asyncio.get_running_loop()
        waiting = []
        @worker.handler(concurrency=2)
        async def handler(job, loop):
            waiting.append(loop.create_future())
            if len(waiting) == 2:
                for future in waiting:
                    future.set_result("together")
            return await waiting[0]
    """)
    executor.ready()
    executor.run("a")
    executor.run("b")

    assert [executor.until(Done).output for _ in "ab"] == [b'"together"'] * 2


@pytest.mark.parametrize("levels", [257, 5000])
def test_an_input_nested_too_deep_fails_its_job_alone(start, levels):
    executor = start("@worker.handler\ndef handler(job):\n    return job['input']")
    executor.ready()

    executor.send(Run("deep", b'{"id":"deep","input":%s}' % (b"[" * levels + b"]" * levels), 0.0))
    deep = executor.until(Done)
    executor.run("next", 7)

    assert "at most 256 levels" in deep.error
    assert executor.until(Done).output == b"7"


def test_a_handler_sees_the_job_without_the_fields_of_its_attempt(start):
    executor = start("""
        @dataclass
        class Plain:
            id: str
            input: int
        @worker.handler
        def handler(job):
            return [list(job), Plain(**job).input]
    """)
    executor.ready()
    body = b'{"attempt":2,"leaseMs":40000,"timeoutMs":60000,"id":"a","input":7}'
    executor.send(Run(key="a", body=body, taken_at=0.0))

    assert json.loads(executor.until(Done).output) == [["id", "input"], 7]


def test_a_task_in_a_plain_function_fails_with_advice(start):
    executor = start("""
        @worker.handler
        def handler(job):
            work = asyncio.sleep(0)
            try:
                asyncio.create_task(work)
            finally:
                work.close()
    """)
    executor.ready()

    error = executor.done().error

    assert "no running event loop" in error
    assert "declare the handler with async def" in error


ITERATORS = {
    "map": "map(str, [1, 2])",
    "filter": "filter(None, [0, '1', '2'])",
    "zip": "map(''.join, zip(['1', '2']))",
    "iter": "iter(['1', '2'])",
    "generator": "(str(n) for n in (1, 2))",
    "reversed": "reversed(['2', '1'])",
}


@pytest.mark.parametrize("name", ITERATORS)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_iterator_that_a_function_returns_is_streamed_and_is_the_output(start, name, kind):
    executor = start(f"@worker.handler\n{kind} handler(job): return {ITERATORS[name]}")
    executor.ready()

    done = executor.done()

    assert (done.output, done.error, done.is_stream) == (b'["1","2"]', None, True)
    sent = [chunk for message in executor.seen if isinstance(message, Chunks) for chunk in message.outputs]
    assert sent == [b'"1"', b'"2"']


@pytest.mark.parametrize("value", ["range(3)", "{1: 2}.keys()", "{1: 2}.values()", "memoryview"])
def test_an_iterable_that_is_not_json_fails_with_its_type(start, value):
    executor = start(f"@worker.handler\ndef handler(job): return {value}")
    executor.ready()

    assert executor.done().error.startswith("output is a ")


def read_all(executor):
    """Run a job, acknowledge its chunks as an agent does, and return its end."""
    executor.run()
    while not isinstance(message := executor.next(), Done):
        if isinstance(message, Chunks):
            executor.send(WindowUpdate("a", sum(map(len, message.outputs))))
    return message


def test_an_iterator_too_large_for_an_output_is_streamed_only(start):
    executor = start("@worker.handler\ndef handler(job): return iter(['x' * 10 * 2**20] * 3)")
    executor.ready()
    done = read_all(executor)

    assert (done.output, done.error) == (b"[]", None)
    assert sum(isinstance(message, Chunks) for message in executor.seen) == 3


def test_an_aggregate_too_large_for_an_output_fails_before_the_rest_is_made(start):
    executor = start("""
        @worker.handler(aggregate=True)
        def handler(job):
            while True:
                yield "x" * 5 * 2**20
    """)
    executor.ready()
    done = read_all(executor)

    assert "the chunks together exceed 20 MiB" in done.error

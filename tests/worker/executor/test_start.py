"""What an executor does before its first job, and after its last."""

import pytest

from runpod_worker.core.dispatch.messages import File, Progress


def test_ready_describes_the_worker(start):
    executor = start("""
        @worker.model
        def load():
            return {"weights": 7}
        @worker.handler(timeout=9, aggregate=True, refresh=True, concurrency=3)
        def handler(job, model):
            yield model["weights"]
    """)

    ready = executor.ready()

    assert (ready.kind, ready.slots, ready.device, ready.timeout_s) == ("generator", 3, "cpu", 9.0)
    assert ready.aggregate
    assert ready.refresh
    assert executor.output() == [7]


def test_concurrency_from_outside_wins(start):
    executor = start("@worker.handler\nasync def handler(job): ...", RUNPOD_WORKER_CONCURRENCY="5")

    assert executor.ready().slots == 5


def test_a_device_that_is_not_there_is_refused(start):
    executor = start("@worker.handler\ndef h(job): ...", RUNPOD_WORKER_DEVICE="cuda:7")

    assert "cuda:7 was requested" in str(executor.load_error())


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("@worker.model\ndef load(): raise OSError('no disk')\n@worker.handler\ndef h(job, m): ...", "no disk"),
        ("@worker.model\ndef load(): sys.exit(3)\n@worker.handler\ndef h(job, m): ...", "3"),
        ("@worker.check\ndef fit(): raise RuntimeError('GPU too hot')\n@worker.handler\ndef h(job): ...", "too hot"),
        ("@worker.warmup\ndef w(): return {'n': 0}\n@worker.handler\ndef h(job): 1 / job['input']['n']", "warm-up"),
    ],
    ids=["raises", "exits", "check", "warmup"],
)
def test_whatever_fails_while_loading_is_raised(start, code, error):
    assert error in str(start(code).load_error())


def test_hooks_run_in_order_and_may_be_coroutines(start, tmp_path):
    executor = start("""
        steps = []
        @worker.model
        async def load():
            steps.append("load")
            return "model"
        @worker.check
        def check(model):
            steps.append(f"check {model}")
        @worker.warmup
        def examples():
            return [{"n": 1}, {"n": 2}]
        @worker.handler
        def handler(job, model):
            steps.append(job["input"]["n"])
            job.progress(1)
            job.save(b"x", "x.bin")
            return steps
        @worker.shutdown
        def bye(model):
            with open("bye", "w") as file:
                file.write(model)
    """)
    executor.ready()

    assert executor.output(value={"n": 3}) == ["load", "check model", 1, 2, 3]
    assert not any(isinstance(message, Progress | File) and message.key == "warmup" for message in executor.seen)
    executor.exit()
    assert (tmp_path / "bye").read_text() == "model"

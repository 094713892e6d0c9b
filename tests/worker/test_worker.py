import subprocess
import sys

import pytest

import runpod_worker
from runpod_worker import DeclarationError, Worker


@pytest.fixture
def worker():
    return Worker()


def test_a_worker_without_a_handler_says_so(worker):
    with pytest.raises(DeclarationError, match="there is no handler"):
        worker.declaration()


def test_a_second_handler_is_refused_by_both_names(worker):
    @worker.handler
    def first(job): ...

    with pytest.raises(DeclarationError, match=r"second: the handler is .*first already"):

        @worker.handler
        def second(job): ...


def test_a_second_model_is_refused(worker):
    worker.model(lambda: 1)

    with pytest.raises(DeclarationError, match="the model is loaded by"):
        worker.model(lambda: 2)


def test_a_handler_that_asks_for_a_model_needs_one(worker):
    @worker.handler
    def handler(job, model): ...

    with pytest.raises(DeclarationError, match=r"asks for a model: put @worker.model"):
        worker.declaration()


def test_hooks_with_the_wrong_arguments_are_refused(worker):
    for hook in (worker.model, worker.warmup, worker.check, worker.shutdown):
        with pytest.raises(DeclarationError, match="expected"):
            hook(lambda a, b: 1)
        with pytest.raises(DeclarationError, match="expected a function"):
            hook(7)


def test_decorators_return_the_function_itself(worker):
    def load(device): ...

    def handler(job, model): ...

    assert worker.model(load) is load
    assert worker.handler(concurrency=2)(handler) is handler
    declaration = worker.declaration()
    assert declaration.model.arguments == 1
    assert declaration.handler.concurrency == 2


def test_an_unknown_option_of_the_handler_is_refused(worker):
    with pytest.raises(DeclarationError, match=r"expected the options aggregate, concurrency, .*, got 'retries'"):
        worker.handler(retries=3)


def test_the_public_names_of_the_worker_are_there():
    for name in ("Worker", "Job", "InputError", "JobStopped", "DeclarationError", "OutputError", "__version__"):
        assert name in runpod_worker.__all__
        assert getattr(runpod_worker, name)
    assert list(runpod_worker.__all__) == sorted(runpod_worker.__all__)


def test_an_executor_loads_neither_torch_nor_anything_of_the_network():
    code = """if True:
        import sys
        import runpod_worker.worker.executor.main, runpod_worker.worker.launch.modes
        runpod_worker.Worker, runpod_worker.Job
        heavy = ("torch", "aiohttp", "sqlite3", "redis", "runpod_worker.service", "runpod_worker.client")
        print([name for name in heavy if name in sys.modules])
    """

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"

"""Every command with bad input: one line that names the input and no traceback; status 2 for usage, 1 for failures."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from runpod_worker.cli import dev, main

LIMIT_S = 60
HANDLER = "from runpod_worker import Worker\nworker = Worker()\n@worker.handler\ndef handler(job):\n    return 1\n"


class Bad(NamedTuple):
    """A command line that must fail."""

    line: str
    """The arguments, separated by spaces; `''` is an empty one, `%` a lone surrogate."""
    words: str
    """What the message must contain."""
    env: Mapping[str, str] = {}
    status: int = 2

    def arguments(self) -> list[str]:
        return [part.replace("''", "").replace("%", "\udcff") for part in self.line.split(" ")]


URL = "http://127.0.0.1:9/v2/e"
LEVEL = "expected ERROR, WARN, INFO, DEBUG, TRACE or NOTSET"

BAD = [
    Bad("nonsense", "nonsense"),
    Bad("--nonsense", "--nonsense"),
    # serve
    Bad("serve --port 99999", "--port: expected a whole number from 0 to 65535, got 99999"),
    Bad("serve --port -1", "--port"),
    Bad("serve --port http", "--port"),
    Bad("serve --port ''", "--port"),
    Bad("serve --lease -5", "--lease: expected a number from 1 to"),
    Bad("serve --lease 0", "--lease"),
    Bad("serve --lease nan", "--lease"),
    Bad("serve --lease inf", "--lease"),
    Bad("serve --lease soon", "--lease"),
    Bad("serve --host ''", "--host"),
    Bad("serve --host a/b", "--host"),
    Bad("serve --host 0.0.0.0 --memory", "host: expected a loopback address"),
    Bad("serve --public-url not-a-url", "--public-url: expected http(s)://host"),
    Bad("serve --public-url http://", "--public-url"),
    Bad("serve --public-url http://h:99999", "--public-url"),
    Bad("serve --data file", "'file'"),
    Bad("serve --data file/below", "file/below"),
    Bad("serve --log-level LOUD", LEVEL),
    Bad("serve extra", "extra"),
    Bad("serve", "RUNPOD_SERVICE_PORT: expected a whole number from 0 to 65535", {"RUNPOD_SERVICE_PORT": "70000"}),
    Bad("serve", "RUNPOD_SERVICE_PORT", {"RUNPOD_SERVICE_PORT": "eighty"}),
    Bad("serve", "RUNPOD_SERVICE_LEASE", {"RUNPOD_SERVICE_LEASE": "-5"}),
    Bad("serve", "RUNPOD_SERVICE_PUBLIC_URL", {"RUNPOD_SERVICE_PUBLIC_URL": "//host"}),
    Bad("serve", "RUNPOD_SERVICE_RETENTION", {"RUNPOD_SERVICE_RETENTION": "nan"}),
    Bad("serve", "RUNPOD_SERVICE_MAX_RUN_BYTES", {"RUNPOD_SERVICE_MAX_RUN_BYTES": "0"}),
    Bad("serve", "RUNPOD_SERVICE_PRIVATE_WEBHOOKS", {"RUNPOD_SERVICE_PRIVATE_WEBHOOKS": "maybe"}),
    Bad("serve --memory --port 0", "webhooks.secret", {"RUNPOD_SERVICE_WEBHOOK_SECRET": "guess"}),
    # keys
    Bad("keys create ''", "account: expected a name"),
    Bad("keys create %", "account: expected a name"),
    Bad("keys create", "Missing argument 'account'"),
    Bad("keys create me -e bad/name", "endpoint: expected letters, digits"),
    Bad("keys create me -e ''", "endpoint: expected"),
    Bad("keys create me -e ..", "endpoint: expected"),
    Bad("keys create me -e %", "endpoint: expected"),
    Bad("keys create me --data file", "'file'"),
    Bad("keys list --data TYPO", "--data: expected the data folder of a service, but 'TYPO'"),
    Bad("keys list --data file", "--data: expected the data folder of a service, but 'file'"),
    Bad("keys revoke abc", "KEY: expected"),
    Bad("keys revoke abcdef0123456789 --data TYPO", "--data"),
    Bad("keys revoke ''", "KEY: expected"),
    # run
    Bad("run", "Missing argument 'handler'"),
    Bad("run nowhere.py", "nowhere.py"),
    Bad("run .", "."),
    Bad("run handler.py", "no job service to take jobs from"),
    Bad("run handler.py --url notaurl://", "--url: expected http(s)://host[:port]/v2/ENDPOINT, got 'notaurl://'"),
    Bad("run handler.py --url http:///v2/e", "--url"),
    Bad("run handler.py --url http://h:1/run", "--url"),
    Bad(f"run handler.py --url {URL} --concurrency 0", "--concurrency"),
    Bad(f"run handler.py --url {URL} --grace -1", "--grace"),
    Bad(f"run handler.py --url {URL} --grace nan", "--grace"),
    Bad(f"run handler.py --url {URL} --device tpu", "--device: expected auto, cuda, cuda:N, cpu or mps, got 'tpu'"),
    Bad(f"run handler.py --url {URL} --log-level LOUD", f"--log-level: {LEVEL}"),
    Bad(f"run handler.py --url {URL}", f"RUNPOD_LOG_LEVEL: {LEVEL}, got 'verbose'", {"RUNPOD_LOG_LEVEL": "verbose"}),
    Bad(f"run handler.py --url {URL}", "RUNPOD_WORKER_CONCURRENCY", {"RUNPOD_WORKER_CONCURRENCY": "abc"}),
    Bad(f"run handler.py --url {URL}", "RUNPOD_WORKER_CONCURRENCY", {"RUNPOD_WORKER_CONCURRENCY": "0"}),
    Bad(f"run handler.py --url {URL}", "RUNPOD_PING_INTERVAL", {"RUNPOD_PING_INTERVAL": "0"}),
    Bad("run handler.py", "RUNPOD_WEBHOOK_GET_JOB", {"RUNPOD_WEBHOOK_GET_JOB": "job-take"}),
    Bad(f"run broken/handler.py --url {URL}", "worker.yaml"),
    # dev
    Bad("dev", "Missing argument 'handler'"),
    Bad("dev nowhere.py", "nowhere.py"),
    Bad("dev handler.py --port 99999", "--port"),
    Bad("dev handler.py --log-level LOUD", LEVEL),
    Bad("dev handler.py --port {taken}", "cannot listen on"),
    # test
    Bad("test nowhere.py", "nowhere.py"),
    Bad("test empty", "no handler"),
    Bad("test broken", "worker.yaml"),
    # call
    Bad("call", "Missing argument 'endpoint'"),
    Bad("call e", "JSON"),
    Bad("call notaurl:// {}", "ENDPOINT: expected an id or http(s)://host[:port]/v2/ENDPOINT, got 'notaurl://'"),
    Bad("call http:// {}", "ENDPOINT"),
    Bad("call ftp://h/v2/e {}", "ENDPOINT"),
    Bad("call a/b {}", "ENDPOINT"),
    Bad("call '' {}", "ENDPOINT"),
    Bad(f"call {URL} nonsense", "the input: expected JSON, got 'nonsense'"),
    Bad(f"call {URL} {'[' * 100_000}", "the input: expected JSON"),
    Bad(f"call {URL} @nowhere.json", "nowhere.json"),
    Bad(f"call {URL} @binary", "the input: expected a file of UTF-8 text"),
    Bad(f"call {URL} @.", "the input: expected a file"),
    Bad(f"call {URL} {{}} --timeout -1", "--timeout"),
    Bad(f"call {URL} {{}} --timeout nan", "--timeout"),
    Bad(f"call {URL} {{}} --timeout soon", "--timeout"),
    Bad("call e {}", "no API key"),
    Bad(f"call {URL} {{}} --key ä", "api_key: expected printable ASCII"),
    Bad(f"call {URL} {{}} --timeout 0.5", "cannot reach the job service", status=1),
    # build
    Bad("build nowhere", "nowhere"),
    Bad("build file", "file"),
    Bad("build broken --no-build", "worker.yaml"),
    Bad("build . --builder kaniko", "kaniko", status=1),
    # init
    Bad("init", "expected a folder"),
    Bad("init nonsense new", "no template 'nonsense'"),
    Bad("init hello file", "file is a file"),
    Bad("init hello broken", "broken is not empty"),
    Bad("init hello file/below", "file/below", status=1),
    # conformance
    Bad("conformance", "give the URL of an endpoint, or --worker CMD"),
    Bad("conformance notaurl", "notaurl"),
    Bad("conformance http://", "http://"),
    Bad(f"conformance {URL} --worker x", "give the URL of an endpoint, or --worker CMD"),
    Bad(f"conformance {URL} --lease 0", "--lease"),
    Bad(f"conformance {URL} --only nonsense", "--only: no check"),
    Bad("conformance --worker '", "--worker"),
    # config
    Bad("config", "show"),
    Bad("config show broken", "worker.yaml"),
    Bad("config show --grace -1", "--grace"),
    Bad("config show", "RUNPOD_WORKER_GRACE", {"RUNPOD_WORKER_GRACE": "-1"}),
    Bad("config show", "RUNPOD_WORKER_DOWNLOADS", {"RUNPOD_WORKER_DOWNLOADS": "0"}),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a handler, a broken worker.yaml and files of the wrong kind, as the current one."""
    (tmp_path / "handler.py").write_text(HANDLER)
    (tmp_path / "file").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "handler.py").write_text(HANDLER)
    (tmp_path / "broken" / "worker.yaml").write_text("concurrency: none\n")
    monkeypatch.chdir(tmp_path)
    for name in ("RUNPOD_API_KEY", "RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_WORKER_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    """End a command that was not refused and runs on."""

    def expire(number: int, frame: FrameType | None) -> None:
        pytest.fail("the command was not refused")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(LIMIT_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("bad", BAD, ids=[f"{bad.line[:50]} {' '.join(bad.env)}".strip() for bad in BAD])
def test_bad_input_is_one_clear_line(
    bad: Bad, taken: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in bad.env.items():
        monkeypatch.setenv(name, value)
    before = sorted(folder.rglob("*"))

    status = main([part.replace("{taken}", str(taken)) for part in bad.arguments()])

    out, err = capsys.readouterr()
    assert status == bad.status, err
    assert "Traceback" not in out + err
    message = " ".join((err or out).replace("│", " ").split())
    assert bad.words in message
    made = {path.name for path in set(folder.rglob("*")) - set(before)}
    assert "TYPO" not in made


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runpod_worker", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.parametrize("text", [HANDLER, "x = 1\n"])
def test_a_file_that_starts_no_worker_was_not_tested(folder: Path, text: str) -> None:
    (folder / "handler.py").write_text(text)
    (folder / "test_input.json").write_text('{"input": 1}')

    done = cli("test", "handler.py")

    assert done.returncode == 1
    assert "handler.py ended without starting a worker, so nothing was tested" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "test_input.json not found"),
        (("--input", "{"), "the test input: not JSON"),
        (("--input", "[1]"), 'the test input: expected a JSON object like {"input": ...}, got list'),
        (("--input", '{"prompt": 1}'), 'Expected {"input": ...}'),
        (("--input", "@nowhere.json"), "nowhere.json"),
        (("--input", '{"input": 1}', "--output", "{"), "the expected output: not JSON"),
    ],
)
def test_a_wrong_test_input_is_named(folder: Path, arguments: tuple[str, ...], words: str) -> None:
    (folder / "handler.py").write_text(HANDLER + "worker.start()\n")

    done = cli("test", "handler.py", *arguments)

    assert done.returncode == 1
    assert words in done.stdout
    assert "--test_input:" not in done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def test_a_refused_endpoint_creates_no_account(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", "me", "-e", "mine"]) == 0
    assert main(["keys", "create", "other", "-e", "fine", "-e", "mine"]) == 2
    capsys.readouterr()

    assert main(["keys", "list"]) == 0

    assert capsys.readouterr().out.splitlines()[0] == "me: endpoints mine"
    assert main(["keys", "list"]) == 0
    assert "other" not in capsys.readouterr().out


def test_dev_takes_the_next_port_if_its_own_is_in_use(
    taken: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dev, "DEFAULT_PORT", taken)

    port = dev._free_port()

    assert taken < port < taken + 100
    assert capsys.readouterr().err == f"port {taken} is in use, so the service takes {port}\n"

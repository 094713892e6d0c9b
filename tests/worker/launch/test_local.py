"""`python handler.py` without a job service, as a real process."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

HANDLER = """
import sys
from runpod_worker import Worker
worker = Worker()

@worker.handler
def handler(job):
    given = job["input"]
    if given == "boom":
        raise ValueError("no such picture")
    if given == "error":
        return {"error": "out of paint"}
    if given == "argv":
        return sys.argv[1:]
    if given == "file":
        return job.save(b"bytes", "out.bin")
    return {"id": job["id"], "got": given}

worker.start()
"""

GENERATOR = """
from runpod_worker import Worker
worker = Worker()

@worker.handler(aggregate=True)
def handler(job):
    for number in range(job["input"]["n"]):
        job.progress({"at": number})
        yield number

worker.start()
"""


@pytest.fixture
def run(tmp_path):
    def run(*arguments, code=HANDLER, **env):
        (tmp_path / "handler.py").write_text(textwrap.dedent(code))
        return subprocess.run(
            [sys.executable, "-W", "error", "handler.py", *arguments],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    run.folder = tmp_path  # type: ignore[attr-defined]
    return run


def test_the_job_is_read_from_test_input_json(run):
    (run.folder / "test_input.json").write_text('{"input": "æble"}', encoding="utf-8")

    done = run()

    assert done.returncode == 0, done.stderr
    assert '"id": "local_test"' in done.stdout
    assert '"got": "æble"' in done.stdout
    assert "ms in the handler" in done.stdout


def test_a_job_on_the_command_line_wins_and_keeps_its_id(run):
    (run.folder / "test_input.json").write_text('{"input": 1}')

    done = run("--test_input", '{"id": "mine", "input": {}}')

    assert done.returncode == 0
    assert '"id": "mine"' in done.stdout
    assert '"got": {}' in done.stdout


def test_a_wrong_setting_is_one_line(run):
    done = run(RUNPOD_LOG_LEVEL="verbose")

    assert done.returncode == 2
    assert done.stderr == (
        "error: RUNPOD_LOG_LEVEL: expected ERROR, WARN, INFO, DEBUG, TRACE or NOTSET, got 'verbose'\n"
    )


def test_a_job_on_the_command_line_is_run_even_where_there_is_a_service(run):
    done = run("--test_input", '{"input": 1}', RUNPOD_WEBHOOK_GET_JOB="http://127.0.0.1:9/job-take/x?")

    assert done.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "test_input.json not found, exiting."),
        (("--test_input", "{}"), "Job has no input parameter."),
        (("--test_input", '{"input": null}'), "Job has no input parameter."),
        (("--test_input", "{"), "the test input: not JSON"),
        (("--test_input", "[1]"), 'expected a JSON object like {"input": ...}, got list'),
        (("--test_input", "@nowhere.json"), "No such file"),
        (("--test_input", '{"input": "boom"}'), "ValueError: no such picture"),
        (("--test_input", '{"input": "error"}'), "out of paint"),
    ],
)
def test_what_does_not_work_exits_1_and_says_why(run, arguments, reason):
    done = run(*arguments)

    assert done.returncode == 1
    assert reason in done.stdout


def test_generators_are_iterated(run):
    done = run("--test_input", '{"input": {"n": 2}}', "--test_output", "[0, 1]", code=GENERATOR)

    assert done.returncode == 0, done.stdout
    assert "chunk 0    0\n" in done.stdout
    assert "chunk 1    1\n" in done.stdout
    assert 'progress   {"at":1}' in done.stdout


def test_the_output_is_compared_with_the_expected_one(run):
    (run.folder / "expected.json").write_text(json.dumps({"got": 1, "id": "local_test"}))

    same = run("--test_input", '{"input": 1}', "--test_output", "@expected.json")
    other = run("--test_input", '{"input": 2}', "--test_output", "@expected.json")

    assert same.returncode == 0
    assert other.returncode == 1
    assert '\n  -  "got": 1,\n' in other.stdout
    assert '\n  +  "got": 2,\n' in other.stdout


def test_flags_of_ours_are_taken_out_of_the_command_line(run):
    done = run("--test_input", '{"input": "argv"}', "--mine", "--rp_log_level", "ERROR", "7")

    assert json.loads(done.stdout.partition("output     ")[2].partition("time ")[0]) == ["--mine", "7"]


def test_saved_files_go_into_a_folder(run):
    done = run("--test_input", '{"input": "file"}')

    assert '"output/out.bin"' in done.stdout
    assert (run.folder / "output" / "out.bin").read_bytes() == b"bytes"


def test_a_coroutine_that_saves_and_stops_in_time_works_too(run):
    code = """
        import asyncio
        from runpod_worker import Worker
        worker = Worker()
        @worker.model
        async def load():
            return asyncio.get_running_loop()
        @worker.handler(timeout=0.5)
        async def handler(job, loop):
            assert loop is asyncio.get_running_loop()
            await asyncio.sleep(job["input"])
            return "slept"
        worker.start()
    """

    assert run("--test_input", '{"input": 0.001}', code=code).returncode == 0
    late = run("--test_input", '{"input": 60}', code=code)
    assert late.returncode == 1
    assert "the handler's timeout of 0.5 s exceeded" in late.stdout


def test_a_worker_that_is_declared_wrongly_says_so(run):
    done = run(code="from runpod_worker import Worker\nWorker().start()")

    assert done.returncode == 1
    assert "DeclarationError: there is no handler" in done.stderr


def test_the_local_api_belongs_to_the_sdks_start(run):
    done = run("--rp_serve_api")

    assert "there is no local API here" in done.stderr


FILES = """
    from dataclasses import dataclass
    from runpod_worker import File, Worker
    worker = Worker()
    @dataclass
    class Request:
        audio: File
    @worker.handler(input=Request)
    def handler(job):
        return [job.input.audio.name, job.input.audio.read_text(), job.fetch(job["input"]["audio"]).read_text()]
    worker.start()
"""


def test_a_job_may_name_local_files_and_others(run, file_server):
    (run.folder / "a.txt").write_text("here")
    (run.folder / "temporary").mkdir()
    file_server.files["/b.txt"] = b"there"
    env = {"TMPDIR": str(run.folder / "temporary"), "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS": "1"}

    for source, expected in (
        ("a.txt", ["a.txt", "here", "here"]),
        (file_server.url("/b.txt"), ["b.txt", "there", "there"]),
        ("data:text/plain,c", ["file.txt", "c", "c"]),
    ):
        job = json.dumps({"input": {"audio": source}})
        done = run("--test_input", job, "--test_output", json.dumps(expected), code=FILES, **env)
        assert done.returncode == 0, done.stdout + done.stderr
    assert file_server.requested == ["/b.txt"]
    assert list((run.folder / "temporary").iterdir()) == []


def test_a_local_file_that_is_not_there_is_named_with_its_field(run):
    done = run("--test_input", '{"input": {"audio": "no-such.wav"}}', code=FILES)

    assert done.returncode == 1
    assert "input.audio: expected the path of a file, a URL, a data URL or base64, got other text" in done.stdout


VECTORS = """
    from runpod_worker import Worker
    worker = Worker()
    @worker.handler
    def handler(job):
        job.progress("p" * 1000)
        return {"vectors": [list(range(384))] * 4, "text": "x" * 100_000}
    worker.start()
"""


def test_long_values_are_truncated_for_people_and_compared_in_full(run):
    expected = json.dumps({"vectors": [list(range(384))] * 4, "text": "x" * 100_000})
    (run.folder / "expected.json").write_text(expected)

    done = run("--test_input", '{"input": 1}', "--test_output", "@expected.json", code=VECTORS)

    assert done.returncode == 0, done.stdout
    assert "… 380 more" in done.stdout
    assert "… 99,900 more characters" in done.stdout
    assert "--test_full prints them in full" in done.stdout
    assert len(done.stdout.splitlines()) < 50


def test_long_values_are_printed_in_full_when_asked_for(run):
    done = run("--test_input", '{"input": 1}', "--test_full", code=VECTORS)

    printed = json.loads(done.stdout.partition("output     ")[2].partition("time ")[0])
    assert printed == {"vectors": [list(range(384))] * 4, "text": "x" * 100_000}
    assert "shortened" not in done.stdout

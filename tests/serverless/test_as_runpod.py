"""A handler that says `import runpod` runs unedited."""

import subprocess
import sys
import textwrap

import pytest

from runpod_worker.serverless import as_runpod

ABSENT = "import sys; sys.path.insert(0, {folder!r})\n"


def run(tmp_path, code, *command):
    handler = tmp_path / "old.py"
    handler.write_text(textwrap.dedent(code))
    return subprocess.run(
        [sys.executable, *command, str(handler)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def aliased(tmp_path, code):
    """Run code with the alias on the path, warnings being errors."""
    done = run(tmp_path, ABSENT.format(folder=str(as_runpod.FOLDER)) + textwrap.dedent(code), "-W", "error")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_old_imports_find_our_modules(tmp_path):
    out = aliased(
        tmp_path,
        """
        import runpod
        import runpod.serverless.utils.rp_debugger as debugger
        from runpod import RunPodLogger, serverless
        from runpod.serverless import VolumeCache, progress_update, register_fitness_check
        from runpod.serverless.modules.rp_logger import RunPodLogger as Logger
        from runpod.serverless.utils import download_files_from_urls, rp_cleanup, rp_download, rp_upload, rp_validator
        from runpod.serverless.utils.rp_upload import upload_file_to_bucket, upload_in_memory_object
        from runpod.serverless.utils.rp_validator import validate
        import runpod_worker

        print(runpod.__version__, runpod.serverless.runpod_version)
        print(runpod.serverless is runpod_worker.serverless, Logger is RunPodLogger, debugger.__spec__.name)
        """,
    )

    assert out == "1.12.0 1.12.0\nTrue True runpod_worker.serverless.utils.rp_debugger\n"


def test_what_is_assigned_to_runpod_is_assigned_to_us(tmp_path):
    code = "import runpod, runpod_worker\nrunpod.api_key = 'key'\nprint(runpod_worker.api_key, runpod.api_key)"

    assert aliased(tmp_path, code) == "key key\n"


def test_a_part_that_is_not_there_is_named(tmp_path):
    code = """
        try:
            import runpod.api.ctl_commands
        except ModuleNotFoundError as error:
            print(error, error.name)
    """

    assert "No module named 'runpod.api': runpod_worker replaces the SDK here" in aliased(tmp_path, code)


@pytest.mark.parametrize("imports", ["import runpod", "from runpod import serverless\nimport runpod"])
async def test_run_as_runpod_takes_jobs_with_an_unedited_handler(work, imports):
    code = f"{imports}\nrunpod.serverless.start({{'handler': lambda job: runpod.__version__}})"
    command = ("-m", "runpod_worker", "run", "--as-runpod")

    seen, worker = await work(code, {"id": "a", "input": "x"}, command=command)

    assert seen.jobs["a"][-1].body == {"output": "1.12.0"}
    assert await worker.stop() == 0


def test_test_as_runpod_runs_the_test_input(tmp_path):
    (tmp_path / "test_input.json").write_text('{"input": 3}')
    code = "import runpod\nrunpod.serverless.start({'handler': lambda job: job['input'] + 1})"

    done = run(tmp_path, code, "-m", "runpod_worker", "test", "--as-runpod")

    assert done.returncode == 0, done.stderr
    assert "output     4" in done.stdout


def test_child_processes_of_the_handler_find_it_too(tmp_path):
    (tmp_path / "test_input.json").write_text('{"input": 3}')
    code = """
        import subprocess, sys
        import runpod
        def handler(job):
            command = [sys.executable, "-c", "import runpod; print(runpod.__version__)"]
            return subprocess.check_output(command, text=True)
        runpod.serverless.start({"handler": handler})
    """

    assert '"1.12.0\\n"' in run(tmp_path, code, "-m", "runpod_worker", "test", "--as-runpod").stdout


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["fast", "parser"])
async def test_run_passes_arguments_to_the_handlers_file(work, debug):
    code = "import runpod, sys\nseen = sys.argv[1:]\nrunpod.serverless.start({'handler': lambda job: seen})"
    command = ("-m", "runpod_worker", *debug, "run", "--as-runpod")

    seen, worker = await work(code, {"id": "a", "input": 1}, command=command, arguments=("--", "--generator", "x"))

    assert seen.jobs["a"][-1].body == {"output": ["--generator", "x"]}
    assert await worker.stop() == 0

"""The clients that people have, against our service and our worker: RunPod's for Python and JavaScript, OpenAI's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CALLERS = Path(__file__).parent / "callers"

HANDLER = """
    import time
    from runpod_worker import Worker
    worker = Worker()

    @worker.handler
    def handler(job):
        asked = job["input"]
        if "raise" in asked:
            raise ValueError(asked["raise"])
        while "wait" in asked:
            time.sleep(0.05)
        return iter(asked["yield"]) if "yield" in asked else asked["return"]
"""

CHAT = """
    import pathlib, time
    from runpod_worker import Worker, openai
    worker = Worker()
    first_word_seen = pathlib.Path("first-word-seen")

    @worker.model
    def load():
        return ["hello", " there"]

    @worker.handler
    @openai.chat(models=["tiny", "small"])
    {kind}def chat(request, words):
        what = request.get("user")
        if what == "refused":
            raise openai.Error("too long", status=422, code="too_long", param="messages")
        if what == "raised":
            raise RuntimeError("broke")
        yield words[0]
        while what == "gated" and not first_word_seen.exists():
            {sleep}(0.01)
        while what == "endless":
            {sleep}(0.01)
            yield "more"
        if what == "late":
            raise RuntimeError("broke late")
        yield words[1]
        request.finish("length", prompt_tokens=2, completion_tokens=3)
"""


def ask(*command: str) -> Any:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def serve_handler(site: Any, code: str) -> None:
    handler = site.handler(textwrap.dedent(code) + "\nworker.start()\n")
    command = [sys.executable, "-m", "runpod_worker", "run", str(handler)]
    site.worker(*command, RUNPOD_WORKER_PREFETCH="0")  # the test counts queued jobs, so prefetch none


@pytest.fixture
def url(site: Any) -> str:
    site.serve()
    serve_handler(site, HANDLER)
    return str(site.url)


PURGED = {"removed": 2, "status": "completed"}
STREAM = [1, "two", {"three": 3}]


def test_runpods_client(url: str, reference: Path) -> None:
    seen = ask(str(reference), str(CALLERS / "sync.py"), url)

    assert seen == {
        "run_sync": "ünï",
        "output": {"n": 1},
        "status": "COMPLETED",
        "stream": STREAM,
        "failed": [None, "FAILED"],
        "health": 2,
        "purge": PURGED,
        "cancel": "CANCELLED",
    }


def test_runpods_asyncio_client(url: str, reference: Path) -> None:
    seen = ask(str(reference), str(CALLERS / "asynchronous.py"), url)

    assert seen == {
        "output": {"n": 1},
        "status": "COMPLETED",
        "stream": STREAM,
        "health": 2,
        "purge": PURGED,
        "cancel": "CANCELLED",
    }


def test_runpods_javascript_client(url: str, node_modules: Path) -> None:
    seen = ask("node", str(CALLERS / "javascript.mjs"), url, str(node_modules))

    assert seen == {
        "run_sync": ["COMPLETED", "ünï"],
        "status_sync": "COMPLETED",
        "output": {"n": 1},
        "stream": STREAM,
        "failed": ["FAILED", True],
        "health": 2,
        "purge": PURGED,
        "cancel": "CANCELLED",
    }


@pytest.mark.parametrize("kind", ["", "async "])
def test_openais_client(site: Any, reference: Path, kind: str) -> None:
    site.serve()
    sleep = "await __import__('asyncio').sleep" if kind else "time.sleep"
    serve_handler(site, CHAT.format(kind=kind, sleep=sleep))

    seen = ask(str(reference), str(CALLERS / "openai_client.py"), site.url, str(site.folder / "pod-0-0"))

    assert seen["models"] == ["tiny", "small"]
    assert seen["whole"] == ["assistant", "hello there", "length", "tiny", 5]
    assert seen["stream"] == [["hello", " there"], ["length"], 5]
    assert seen["no model"][:4] == ["NotFoundError", 404, "model_not_found", "model"]
    assert seen["bad request"][:2] == ["BadRequestError", 400]
    assert seen["refused"] == ["UnprocessableEntityError", 422, "too_long", "messages", "too long"]
    assert seen["raised"][:2] == ["InternalServerError", 500]
    assert seen["raised"][4] == "RuntimeError: broke"
    assert "broke late" in seen["raised in stream"]
    assert seen["after hang-up"] == "hello there"


def test_the_handler_in_the_documentation_answers(site: Any, reference: Path) -> None:
    site.serve()
    page = (Path(__file__).parents[2] / "docs/openai.md").read_text()
    caller, handler = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    caller = caller.replace("http://127.0.0.1:8000/v2/ENDPOINT", site.url).replace(
        "client.chat", "answer = client.chat"
    )
    caller += "\nimport json; print(json.dumps(answer.choices[0].message.content))\n"
    command = [sys.executable, "-m", "runpod_worker", "run", str(site.handler(handler))]
    site.worker(*command)

    assert ask(str(reference), str(site.handler(caller, name="caller.py"))) == "You said: hello "


def test_openais_client_with_the_reference_sdk_as_the_worker(site: Any, reference: Path) -> None:
    """A handler as the official vLLM worker has it: raw events for a stream, one dict otherwise."""
    handler = site.handler("""
        import runpod

        async def handler(job):
            asked = job["input"]
            if asked["openai_route"] == "/v1/models":
                yield {"object": "list", "data": [{"id": "tiny", "object": "model", "created": 0, "owned_by": "x"}]}
            elif asked["openai_input"]["model"] != "tiny":
                yield {"error": {"message": "it's not here", "type": "NotFoundError", "code": 404}}
            elif asked["openai_input"].get("stream"):
                head = 'data: {"id":"1","object":"chat.completion.chunk","created":0,"model":"tiny","choices":'
                yield head
                yield '[{"index":0,"delta":{"content":"hi"}}]}\\n\\ndata: [DO'
                yield 'NE]\\n\\n'

        runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
    """)
    site.serve()
    site.worker(str(reference), "-u", str(handler))
    script = """
        import json, sys, openai
        client = openai.OpenAI(base_url=sys.argv[1] + "/openai/v1", api_key="key", max_retries=0)
        seen = [[model.id for model in client.models.list()]]
        chunks = client.chat.completions.create(model="tiny", messages=[], stream=True)
        seen.append([chunk.choices[0].delta.content for chunk in chunks])
        try:
            client.chat.completions.create(model="big", messages=[])
        except openai.NotFoundError as error:
            seen.append([error.status_code, error.body["message"]])
        print(json.dumps(seen))
    """

    seen = ask(str(reference), str(site.handler(script, name="caller.py")), site.url)

    assert seen == [["tiny"], ["hi"], [404, "it's not here"]]


def test_cancel_answers_before_clients_give_up(site: Any) -> None:
    """RunPod's clients wait three seconds; a handler that cannot be interrupted takes longer to stop."""
    stubborn = """
        import time
        from runpod_worker import Worker
        worker = Worker()

        @worker.handler
        def handler(job):
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
    """
    site.serve()
    serve_handler(site, stubborn)
    job = site.run({})
    site.until(lambda: site.status(job)["status"] == "IN_PROGRESS", "the job runs")

    begin = time.monotonic()
    site.post(f"cancel/{job}")

    assert time.monotonic() - begin < 3
    assert site.ended(job)["status"] == "CANCELLED"

"""OpenAI's client on the OpenAI routes. Prints its replies as JSON. Files signal the handler."""

import json
import sys
from pathlib import Path

import openai

url, folder = sys.argv[1], Path(sys.argv[2])
client = openai.OpenAI(base_url=f"{url}/openai/v1", api_key="key", max_retries=0)
hello = [{"role": "user", "content": "hello"}]
seen = {}


def error(**options):
    try:
        client.chat.completions.create(**{"model": "tiny", "messages": hello, **options})
    except openai.APIError as exc:
        status = getattr(exc, "status_code", None)
        return [type(exc).__name__, status, exc.code, exc.param, str(exc.body["message"]) if exc.body else ""]


seen["models"] = [model.id for model in client.models.list()]

whole = client.chat.completions.create(model="tiny", messages=hello)
choice = whole.choices[0]
seen["whole"] = [
    choice.message.role,
    choice.message.content,
    choice.finish_reason,
    whole.model,
    whole.usage.total_tokens,
]

words, reasons, usage = [], [], None
for chunk in client.chat.completions.create(
    model="tiny", messages=hello, stream=True, stream_options={"include_usage": True}, user="gated"
):
    usage = chunk.usage or usage
    for choice in chunk.choices:
        words += [choice.delta.content] if choice.delta.content else []
        reasons += [choice.finish_reason] if choice.finish_reason else []
    if words:
        (folder / "first-word-seen").touch()  # the handler yields the second word after this
seen["stream"] = [words, reasons, usage.total_tokens]

seen["no model"] = error(model="huge")
seen["bad request"] = error(messages=[])
seen["refused"] = error(user="refused")
seen["raised"] = error(user="raised")
seen["raised in stream"] = None
try:
    list(client.chat.completions.create(model="tiny", messages=hello, stream=True, user="late"))
except openai.APIError as exc:
    seen["raised in stream"] = str(exc)  # type: ignore[assignment]

stream = client.chat.completions.create(model="tiny", messages=hello, stream=True, user="endless")
next(iter(stream))
stream.close()  # hangs up; the only slot is free again for this:
seen["after hang-up"] = client.chat.completions.create(model="tiny", messages=hello).choices[0].message.content
print(json.dumps(seen))

"""Hostile values for every place where something from outside enters: bodies, headers, paths, queries and replies.

The tables hold values; the generators combine them with the routes and headers that the code declares, so that a new
route, header or field is attacked without a change here, or fails the run because nothing describes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from runpod_worker.core import protocol
from runpod_worker.service.http import wire
from runpod_worker.service.http.requests import Route

ENDPOINT, WORKER, JOB, TOKEN = "hostile", "worker-1", "JOB-ID", "a" * 43
"""`JOB` is replaced by the id of a job that `WORKER` holds."""

OPENAI_ENDPOINT = "hostile-openai"
"""A worker answers here, because `/openai` replies only when its job has ended."""

SEGMENTS: Mapping[str, tuple[str, ...]] = {
    "run": (),
    "runsync": (),
    "status": (JOB,),
    "status-sync": (JOB,),
    "stream": (JOB,),
    "cancel": (JOB,),
    "retry": (JOB,),
    "purge-queue": (),
    "health": (),
    "openai": ("v1", "chat", "completions"),
    "job-take": (WORKER,),
    "job-take-batch": (WORKER,),
    "job-stop": (WORKER,),
    "job-done": (WORKER, JOB),
    "job-stream": (WORKER, JOB),
    "job-return": (WORKER,),
    "ping": (WORKER,),
    "files": (JOB, TOKEN, "picture.png"),
}
"""Valid path segments of each route. A route that is missing here fails the run."""


class Case(NamedTuple):
    """One request. `name` says what is hostile about it."""

    name: str
    method: str
    path: str
    headers: Mapping[str, bytes]
    body: bytes


# ------------------------------------------------------------------ values

NUMBERS = ("", "-1", "-6", "0", "1e309", "nan", "inf", "9" * 400, "0x10", "²", "١٢", "1.5", " 1", "1;", "null", "+3")

TEXTS = (
    "%00", "%0a", "%0d%0aX-Evil:%201", "%ff", "%ed%a0%80", "%2e%2e", "..", ".", "%2f", "%5c", "a" * 6000, "%c3%a9",
    "'", "%22", "%3cscript%3e", "$(id)", "%25%30%30", "%", "%zz", "~", "%e2%80%ae", "{}", "*", "%7f",
)  # fmt: skip
"""Path segments and query values, as they stand in a request line."""

HEADER_VALUES = (
    b"", b"\xff", b"\x80abc", b"\xed\xa0\x80", b"a" * 5000, b"Bearer ", b"Bearer \xff", b"Bearer a b", b",,,,", b"\t",
    b"=", b'"', b"-1", b"1e309", "²".encode(), b"9" * 400, b"nan", b"0", b"chunked, chunked", b"../..", b"bytes=-",
    b"bytes=9-1", b"a;b=\xff", b"text/html; charset=\xff", b"*", b"null",
)  # fmt: skip

HEADERS = (
    *(value for name, value in vars(protocol).items() if name.startswith("X_")),
    "X-Request-ID", "Authorization", "Content-Type", "Content-Encoding", "Accept", "Accept-Encoding", "Connection",
    "Expect", "Origin", "Referer", "Host", "Range", "If-Range", "If-None-Match", "If-Modified-Since", "Cookie",
    "Upgrade", "X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Content-Disposition",
)  # fmt: skip

QUERY_NAMES = ("wait", "ttl", "timings", "batch_size", "isStream", "job_id", "gpu", "status", "job_in_progress")

VALUES: tuple[bytes, ...] = (
    b"null", b"true", b"0", b"-1", b"1e309", b"-1e309", b"9" * 5000, b"0." + b"1" * 5000, b'""', b'"\\ud800"',
    b'"\\u0000"', b'"\xff"', b'"' + b"a" * 100_000 + b'"', b"[]", b"{}", b"[[[]]]", b"[" * 200 + b"]" * 200,
    b"[" * 300 + b"]" * 300, b'{"a":' * 970 + b"1" + b"}" * 970, b"[" * 100_000 + b"]" * 100_000, b"NaN", b"Infinity",
    b"[NaN, 1e400]", b'{"":{"":""}}', b'{"a":1,"a":2}', b'"http://127.0.0.1:1/"', b'"http://[::ffff:10.0.0.1]/"',
    b'"file:///etc/passwd"', b'"http://a b/"', b'"http://\\ud800/"', b"[" + b"1," * 20_000 + b"1]",
)  # fmt: skip
"""JSON values, and some that are none, for each field of a body."""

BODIES: tuple[bytes, ...] = (
    b"", b" ", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf{}", b"{", b"}", b"[]", b"null", b'"text"', b"{}" * 2, b"{'a': 1}",
    b'{"input"', b'{"input": {}} trailing', b"a=b&c=%ff", b"[" * 200_000, b'{"a":' * 50_000, b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", bytes(range(256)), *VALUES,
)  # fmt: skip

FIELDS: Mapping[str, type[msgspec.Struct]] = {
    "run": wire.SubmitBody,
    "runsync": wire.SubmitBody,
    "job-done": wire.ResultBody,
    "job-stream": wire.ChunkBody,
    "job-return": wire.ReleaseBody,
}
"""The fields of the bodies that the service reads."""

OPENAI_FIELDS = ("model", "messages", "stream", "stream_options", "max_tokens", "prompt", "input")


# ------------------------------------------------------------------ requests


def requests(routes: Mapping[str, Route]) -> Iterator[Case]:
    """Yield the hostile requests to these routes."""
    for verb, route in sorted(routes.items()):
        yield Case("method", "DELETE", path_of(verb), {}, b"")
        for method in sorted(route.methods):
            yield from _to_route(verb, method)


def _to_route(verb: str, method: str) -> Iterator[Case]:
    path = path_of(verb)
    body = b"" if method in ("GET", "HEAD") else b'{"input": 1}'
    for name, hostile in (*_paths(verb), *_queries(path)):
        yield Case(name, method, hostile, {}, body)
    for header in HEADERS:
        for value in HEADER_VALUES:
            yield Case(f"header {header}", method, path, {header: value}, body)
    if method == "POST":
        for content in (*BODIES, *bodies_of(verb)):
            yield Case("body", method, path, {}, content)


def _paths(verb: str) -> Iterator[tuple[str, str]]:
    path = path_of(verb)
    for text in TEXTS:
        for index in range(len(SEGMENTS[verb])):
            segments = [*SEGMENTS[verb]]
            segments[index] = text
            yield f"segment {index}", path_of(verb, *segments)
        yield "one more segment", f"{path}/{text}"
        if verb != "openai":  # no worker answers there
            yield "endpoint", path.replace(ENDPOINT, text)


def _queries(path: str) -> Iterator[tuple[str, str]]:
    for name in QUERY_NAMES:
        for value in (*NUMBERS, *TEXTS[:6]):
            if value.isascii():
                yield f"query {name}", f"{path}?{name}={value}"
    yield "many query fields", path + "?" + "&".join(f"a{n}=1" for n in range(200))


def bodies_of(verb: str) -> Iterator[bytes]:
    """Yield bodies with one hostile field each."""
    kind = FIELDS.get(verb)
    names = (*OPENAI_FIELDS,) if kind is None else kind.__struct_fields__
    for name in names:
        for value in VALUES:
            yield b'{"input": 1, %s: %s}' % (json.dumps(name).encode(), value)
    if kind is wire.SubmitBody:
        for name in wire.PolicyBody.__struct_fields__:
            for value in VALUES:
                yield b'{"input": 1, "policy": {"%s": %s}}' % (name.encode(), value)


def path_of(verb: str, *segments: str) -> str:
    """Return the path of a route, with its valid segments by default."""
    endpoint = OPENAI_ENDPOINT if verb == "openai" else ENDPOINT
    return "/".join(["/v2", endpoint, verb, *(segments or SEGMENTS[verb])])


# ------------------------------------------------------------------ bytes that are no HTTP

FRAMING: tuple[bytes, ...] = (
    b"\x00" * 100, b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 50,
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nContent-Length: -6\r\n\r\n{}",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nContent-Length: 9e9\r\n\r\n{}",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n0\r\n\r\n",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-6\r\nabc\r\n0\r\n\r\n",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc",
    b"POST /v2/hostile/run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    b"GET /v2/hostile/health HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/hostile/health HTTP/1.1\r\nHost: x\r\nNo colon here\r\n\r\n",
    b"GET /v2/hostile/health HTTP/1.1\r\nHost: x\r\n folded: yes\r\n\r\n",
    b"GET /v2/hostile/health HTTP/1.1\nHost: x\n\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
)  # fmt: skip

"""Finds the route of a request, checks its source and its key, and answers errors.

A path is split once and looked up in one table. A router that matches patterns would make a request a fifth slower.
Keys and endpoints belong to accounts, and a key is valid for the endpoints of its account.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING

from runpod_worker.core.errors import EndpointNotFound, ServiceRefusal, Unauthorized
from runpod_worker.log import log
from runpod_worker.service.http.guard import Guard, require_json
from runpod_worker.service.http.replies import Answer, render_refusal
from runpod_worker.service.http.requests import Call, MethodNotAllowed, Request, Route, RouteNotFound, parse

if TYPE_CHECKING:
    from runpod_worker.service.keys import Keys


class App:
    """Answers requests, whether they came over a socket or from this process.

    Args:
        routes: the routes below `/v2/{endpoint}/`, by verb.
        keys: the accounts of keys and endpoints; None for a service that has no keys.
        locked: refuse every call while there is no key, instead of answering it. Once a key existed that is so anyway.
        root_endpoint: its routes are answered without `/v2/{endpoint}` too.
        guard: checks where requests come from; default: without keys, callers name a loopback host.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        keys: Keys | None,
        *,
        locked: bool = False,
        root_endpoint: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._routes = routes
        self._root_endpoint = root_endpoint
        self._keys = keys
        self._locked = locked
        self._guard = guard or Guard()

    async def handle(self, request: Request) -> Answer:
        """Return the reply. Any error becomes one: no traceback ever leaves the service.

        Raises:
            ConnectionError: the caller has hung up, so that no reply is needed.
        """
        try:
            return await self._answer(request)
        except ServiceRefusal as exc:
            return render_refusal(exc)
        except Exception as exc:
            if request.is_gone and isinstance(exc, ConnectionError):
                raise
            error_id = uuid.uuid4().hex[:12]
            log.exception("request.failed", extra={"error_id": error_id, "path": request.target.partition("?")[0]})
            return render_refusal(ServiceRefusal(f"an unexpected error; the service's log has it as {error_id}"))

    async def _answer(self, request: Request) -> Answer:
        call = parse(request, request.target)
        endpoint = self._root_endpoint
        if call is None and endpoint is not None:  # `/run` and others, and `/{endpoint}/realtime`
            verb = re.sub(rf"^/{re.escape(endpoint)}/realtime\b", "/runsync", request.target)
            call = parse(request, f"/v2/{endpoint}{verb}")
        route = self._routes.get(call.verb) if call is not None else None
        if call is None or route is None or not route.fits(call.segments):
            raise RouteNotFound
        try:
            if request.method not in route.methods:
                expected = " or ".join(sorted(route.methods))
                raise MethodNotAllowed(f"{call.verb}: expected {expected}, got {request.method}")
            if request.method not in route.public:
                self._check_access(call, route)
            return await route.handle(call)
        except ServiceRefusal as exc:
            return route.refusal(exc)

    def _check_access(self, call: Call, route: Route) -> None:
        method, headers = call.request.method, call.request.headers
        needs_key = self._locked or (self._keys is not None and self._keys.is_locked())
        self._guard.check(method, headers, has_key=needs_key)
        if needs_key:
            check_key(self._keys, call.header("Authorization"), call.endpoint)
        if method == "POST" and not route.any_type:
            require_json(headers)


def check_key(keys: Keys | None, authorization: str | None, endpoint: str) -> None:
    """Check the key of a request to `endpoint`.

    Raises:
        Unauthorized: no key, an unknown key, or the key of another account.
        EndpointNotFound: the endpoint belongs to no account.
        StoreUnavailable: the keys cannot be read.
    """
    key = _key_in(authorization)
    if not key:
        raise Unauthorized
    account = None if keys is None else keys.account_of_key(key)
    if keys is None or account is None:
        raise Unauthorized("invalid api key")
    endpoint_account = keys.account_of_endpoint(endpoint)
    if endpoint_account is None:
        raise EndpointNotFound
    if endpoint_account != account:
        raise Unauthorized("invalid api key")


def _key_in(authorization: str | None) -> str:
    """The key, with or without the word Bearer before it: both are documented (protocol A.1)."""
    words = (authorization or "").split()
    if len(words) > 1 and words[0].lower() == "bearer":
        del words[0]
    return words[0] if len(words) == 1 else ""

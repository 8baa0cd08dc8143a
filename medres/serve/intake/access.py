"""Who may ask over HTTP: the token, the rate limit, and requests that a web page of somebody else
sends. Outermost layer of the application; it also counts answers and sets the security headers.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medres.serve.audit import AuditLog
from medres.serve.telemetry import Telemetry

#: what a supervisor asks without a token, what anybody may know, and what sends a browser to the
#: page
OPEN_PATHS = frozenset({"/livez", "/readyz", "/openapi.json", "/", "/favicon.ico"})
PAGE = "/page"  # asks people to log in by itself
MAX_CLIENTS = 10_000  # whose rates are remembered
FAILURES_PER_SECOND, FAILURES_AT_ONCE = 0.1, 5  # wrong tokens of one client
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RateLimit:
    """A bucket of `at_once` tokens per client, refilled by `per_second`."""

    def __init__(self, per_second: float, at_once: float) -> None:
        self._rate, self._most, self._lock = per_second, at_once, threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_seconds(self, client: str, *, cost: float = 1.0) -> float:
        """Take `cost`; 0, or the seconds after which it would be there (nothing is taken then)."""
        now = time.monotonic()
        with self._lock:
            left, at = self._buckets.get(client, (self._most, now))
            left = min(self._most, left + (now - at) * self._rate)
            missing = max(0.0, max(cost, 1.0) - left)
            self._buckets[client] = (left if missing else left - cost, now)
            self._buckets.move_to_end(client)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        return missing / self._rate


class TokenCheck:
    """Compares what clients send with the token, in constant time. token: None asks for none."""

    def __init__(self, token: str | None, audit: AuditLog) -> None:
        self._token, self._audit = token, audit
        self._failures = RateLimit(FAILURES_PER_SECOND, FAILURES_AT_ONCE)

    @property
    def is_needed(self) -> bool:
        return self._token is not None

    def refusal(self, given: str, client: str) -> JSONResponse | None:
        """None if the token is right. Whoever has guessed too often waits, even with the right
        one.
        """
        wait = self._failures.wait_seconds(client, cost=0.0)
        if wait:
            return error_response(429, "rate_limit", "too many wrong tokens", wait)
        if hmac.compare_digest(given.strip().encode(), (self._token or "").encode()):
            return None
        self._failures.wait_seconds(client)
        self._audit.add("wrong_token")
        response = error_response(401, "wrong_token", "send the token: Authorization: Bearer ...")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response


def is_page(path: str) -> bool:
    """Whether a path belongs to the page for people."""
    return path == PAGE or path.startswith(f"{PAGE}/")


class Access:
    """ASGI middleware. hosts: the names under which a loopback server
    may be addressed; empty allows any.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: TokenCheck,
        hosts: Collection[str],
        requests_per_second: float,
        telemetry: Telemetry,
    ) -> None:
        self._app, self._token, self._hosts = app, token, frozenset(hosts)
        self._requests = RateLimit(requests_per_second, 2 * requests_per_second)
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                self._telemetry.requested(message["status"])
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        client = scope["client"][0] if scope.get("client") else ""
        wait = self._requests.wait_seconds(client)
        if wait:
            return error_response(429, "rate_limit", "too many requests", wait)
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if self._hosts and host not in self._hosts:
            return error_response(403, "other_host", "the server is not known under this name")
        origin = headers.get("origin")
        if origin and urlsplit(origin).netloc != headers.get("host"):
            return error_response(403, "other_origin", "requests of other web pages are refused")
        path = scope["path"]
        if not self._token.is_needed or path in OPEN_PATHS or is_page(path):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return self._token.refusal(given if scheme.lower() == "bearer" else "", client)


def error_response(
    status: int, code: str, message: str, retry_seconds: float | None = None
) -> JSONResponse:
    """{"code", "message"}; with the header Retry-After, in whole seconds."""
    headers = {} if retry_seconds is None else {"Retry-After": str(int(retry_seconds) + 1)}
    return JSONResponse({"code": code, "message": message}, status, headers)

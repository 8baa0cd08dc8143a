"""Who uses the page: people log in with the token, and a cookie stands for it afterwards. Forms
carry a value that a page of another site cannot know.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from medres.errors import ServeError
from medres.serve.intake.access import PAGE

COOKIE, CSRF = "medres_session", "csrf"
SESSION_SECONDS = 8 * 3600.0
MAX_SESSIONS = 1000


class Sessions:
    """The sessions of one server. They end with it. is_secure: whether the page is served by
    TLS.
    """

    def __init__(self, *, is_secure: bool) -> None:
        self._is_secure, self._secret = is_secure, secrets.token_bytes(32)
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def is_open(self, request: Request) -> bool:
        """Whether the request carries the cookie of a session that has not ended."""
        with self._lock:
            end = self._ends.get(request.cookies.get(COOKIE, ""), 0.0)
        return time.monotonic() < end

    def open(self, response: Response) -> None:
        """Begin a session: its cookie is for this server alone, and no script can read it."""
        session = secrets.token_urlsafe(32)
        with self._lock:
            self._ends[session] = time.monotonic() + SESSION_SECONDS
            while len(self._ends) > MAX_SESSIONS:
                self._ends.popitem(last=False)
        response.set_cookie(
            COOKIE,
            session,
            max_age=int(SESSION_SECONDS),
            path=PAGE,
            secure=self._is_secure,
            httponly=True,
            samesite="strict",
        )

    def close(self, request: Request, response: Response) -> None:
        """End the session of the request."""
        with self._lock:
            self._ends.pop(request.cookies.get(COOKIE, ""), None)
        response.delete_cookie(COOKIE, path=PAGE, httponly=True, samesite="strict")

    def csrf(self, request: Request) -> str:
        """The value that the forms of this session carry."""
        session = request.cookies.get(COOKIE, "") if self.is_open(request) else ""
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def require_csrf(self, request: Request, fields: Mapping[str, str]) -> None:
        """Raises ServeError (bad_form)."""
        given = fields.get(CSRF, "").encode()
        if not hmac.compare_digest(given, self.csrf(request).encode()):
            raise ServeError(
                "the form is out of date, or was not sent from this page: open the page again",
                code="bad_form",
            )

"""Who may talk to the studio: only a page of this start, from an address that the studio serves.

Every request must name a host that is served, which stops DNS rebinding, and carry the cookie that
the address with the token sets. What changes anything must come from the studio's own page. Bodies
are bounded before they are read, and every answer forbids the browser whatever is remote.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_BYTES = 24
MOST_BYTES = 24 << 20  # of a request's body
SAFE = ("GET", "HEAD")
HEADERS = {
    "Content-Security-Policy":
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
NEW_ADDRESS = ("This studio does not know this browser. Each start has an address of its own: "
               "open the one that studio.py printed last, in the window where it runs.")


class TooLargeError(Exception):
    """A body with more than MOST_BYTES."""


class Guard:
    """Lets requests through to the application that have the token and the right origin.

    hosts: values of the Host header that are served, in lower case.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.token = token
        port = hosts[0].rpartition(":")[2]
        self.cookie = f"backline-studio-{port}"  # cookies of all ports of a host are one list

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        refusal = self._refusal(scope, headers)
        if refusal:
            await _answer(send, *refusal)
            return
        if scope["path"] == "/" and b"token=" in scope["query_string"]:
            await self._enter(scope, send)
            return
        if not self._has_cookie(headers):
            await _answer(send, HTTPStatus.FORBIDDEN, NEW_ADDRESS)
            return
        await self._pass_on(scope, receive, send)

    def _refusal(self,
                 scope: Scope,
                 headers: dict[str, list[str]]) -> tuple[HTTPStatus, str] | None:
        """Why a request is refused whatever its cookie says; None if it is not."""
        hosts = [host.lower() for host in headers.get("host", [])]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "This address is not served here."
        own = f"http://{hosts[0]}"
        origins = headers.get("origin", [])
        is_safe = scope["method"] in SAFE
        if any(origin.lower() != own for origin in origins) or not (is_safe or origins):
            return HTTPStatus.FORBIDDEN, "Only the studio's own page may ask for this."
        sites = headers.get("sec-fetch-site", [])
        is_entry = scope["path"] == "/" and is_safe
        if not is_entry and any(site not in ("same-origin", "none") for site in sites):
            return HTTPStatus.FORBIDDEN, "Only the studio's own page may ask for this."
        lengths = headers.get("content-length", [])
        if any(not length.isdecimal() or int(length) > MOST_BYTES for length in lengths):
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large()
        return None

    def _has_cookie(self, headers: dict[str, list[str]]) -> bool:
        for line in headers.get("cookie", []):
            try:
                cookies = SimpleCookie(line)
            except CookieError:
                continue
            if self.cookie in cookies and self._is_token(cookies[self.cookie].value):
                return True
        return False

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self.token.encode())

    async def _enter(self, scope: Scope, send: Send) -> None:
        """Exchange the token of the address for a cookie, and take it out of the address."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if not self._is_token(query.get("token", [""])[0]):
            await _answer(send, HTTPStatus.FORBIDDEN, NEW_ADDRESS)
            return
        cookie = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        extra = [(b"location", b"/"), (b"set-cookie", cookie.encode())]
        await _answer(send, HTTPStatus.SEE_OTHER, "", extra)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, with our headers, and count what it reads."""
        n_read = 0
        has_begun = False

        async def bounded() -> Message:
            nonlocal n_read
            message = await receive()
            n_read += len(message.get("body", b""))
            if n_read > MOST_BYTES:
                raise TooLargeError
            return message

        async def guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message.get("headers", []), *_own_headers()]
            await send(message)

        try:
            await self.app(scope, bounded, guarded)
        except TooLargeError:
            if not has_begun:
                await _answer(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, _too_large())


def new_token() -> str:
    """What an address needs to be let in."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def _too_large() -> str:
    return f"At most {MOST_BYTES >> 20} MB at once; send less."


def _own_headers() -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


async def _answer(send: Send,
                  status: HTTPStatus,
                  text: str,
                  extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
    """A short answer of plain text."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_own_headers(), *extra]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})

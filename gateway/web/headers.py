"""Security and CORS headers of answers: what browsers and pages may do with the answer.

The answers 400 and 431 of uvicorn's own parser do not have these headers.

Only origins of an exact list are allowed by CORS (fetch.spec.whatwg.org, "CORS protocol").
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request

# `no-referrer`: an address may contain a stream's token, and other sites must not receive the token.
SECURE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_METHODS = "GET, POST, DELETE"
_ASKED = (
    "authorization, content-type, idempotency-key, last-event-id, traceparent, x-api-key, x-functions-key, "
    "x-write-token, if-none-match, x-run-id, "
    "a2a-version, a2a-extensions, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name"
)
_SHOWN = (
    "content-location, location, retry-after, x-error-code, x-stream-id, "
    "etag, stream-closed, stream-cursor, stream-next-offset, stream-up-to-date, "
    "x-workflow-run-id, x-workflow-stream-tail-index, mcp-session-id"
)
# Headers that OpenAI's clients add to each request. A browser asks in its preflight for each of them.
_ASKED_BY_OPENAI = ", ".join(
    (
        *(f"x-stainless-{what}" for what in ("arch", "custom-poll-interval", "helper-method", "lang", "os")),
        *(f"x-stainless-{what}" for what in ("package-version", "poll-helper", "retry-count", "runtime")),
        *(f"x-stainless-{what}" for what in ("runtime-version", "timeout")),
        *("openai-organization", "openai-project"),
    )
)
_REMEMBERED_SECONDS = 600
# The policy allows the page's own script, style and pictures, and nothing inline. Only DOMPurify makes
# markup.
PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types dompurify",
    )
)


def cors(request: Request, origins: frozenset[str], *, preflight: bool = False) -> Mapping[str, str]:
    """Return the headers that let a page of a listed origin read the answer.

    For any other origin, return only `Vary`.
    """
    if not origins:
        return {}
    origin = request.headers.get("origin", "")
    if origin not in origins:
        return {"vary": "Origin"}
    given = {
        "vary": "Origin",
        "access-control-allow-origin": origin,
        "access-control-allow-credentials": "true",  # for the cookie of App Service's sign-in
        "access-control-expose-headers": _SHOWN,
    }
    if preflight:
        given["access-control-allow-methods"] = _METHODS
        given["access-control-allow-headers"] = f"{_ASKED}, {_ASKED_BY_OPENAI}"
        given["access-control-max-age"] = str(_REMEMBERED_SECONDS)
    return given

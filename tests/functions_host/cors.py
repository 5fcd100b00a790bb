"""The host's own CORS, as on Flex Consumption: the host answers every preflight request, and no function
receives it.

On that plan the host always has a policy (CorsOptionsSetup of azure-functions-host): the origins of
CORS_ALLOWED_ORIGINS, a JSON list, any header and any method. The platform fills the setting from the app's
`siteConfig.cors`; empty means that no origin is allowed, not that the function is asked.

Invariant: for requests that are no preflights the host adds the CORS headers for an allowed origin, and
removes no header (CorsService.ApplyResult of ASP.NET Core, which sets these headers before the answer
begins).
"""

import json
from collections.abc import Mapping
from typing import Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HostCors:
    """A CORS middleware in front of the routes."""

    def __init__(self, app: ASGIApp, origins: list[str], *, credentials: bool) -> None:
        self._app = app
        self._origins = origins
        self._credentials = credentials

    @classmethod
    def of(cls, app: ASGIApp, settings: Mapping[str, str]) -> Self:
        """Read the settings as HostCorsOptionsSetup does."""
        origins = json.loads(settings.get("CORS_ALLOWED_ORIGINS") or "[]")
        return cls(app, origins, credentials=settings.get("CORS_SUPPORT_CREDENTIALS", "").lower() == "true")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "origin" not in (asked := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        given = self._given(asked["origin"])
        if scope["method"] == "OPTIONS" and "access-control-request-method" in asked:
            answer = Response(status_code=204, headers=given | (_leave(asked) if given else {}))
            await answer(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and given:
                headers = MutableHeaders(raw=message["headers"])
                for name, value in given.items():
                    headers[name] = value
                if len(self._origins) > 1:
                    headers.append("vary", "Origin")
            await send(message)

        await self._app(scope, receive, sent)

    def _given(self, origin: str) -> dict[str, str]:
        if origin not in self._origins and self._origins != ["*"]:
            return {}
        given = {"access-control-allow-origin": "*" if self._origins == ["*"] else origin}
        return given | ({"access-control-allow-credentials": "true"} if self._credentials else {})


def _leave(asked: Headers) -> dict[str, str]:
    """Return headers that allow every method and header that the page requests."""
    wanted = asked.get("access-control-request-headers", "")
    headers = {"access-control-allow-headers": wanted} if wanted else {}
    return {**headers, "access-control-allow-methods": asked["access-control-request-method"]}

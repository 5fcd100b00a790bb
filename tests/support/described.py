"""A host's answers, each held against what the host's own /openapi.json says of it."""

from __future__ import annotations

from typing import Any, Self

import httpx
import schemathesis
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CONFORMS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class Described:
    """A host's document, and that its answers are as it says."""

    @classmethod
    async def of(cls, http: httpx.AsyncClient) -> Self:
        """As this host describes itself."""
        return cls(http, (await http.get("/openapi.json")).json())

    def __init__(self, http: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self._http = http
        self._schema = schemathesis.openapi.from_dict(document)

    async def ask(self, method: str, path: str, place: str = "", **options: Any) -> httpx.Response:
        """Ask, and hold the answer against the document: status, type, headers, body."""
        answer = await self._http.request(method, path.replace("{id}", place), **options)
        self.hold(method, path, answer, place)
        return answer

    def hold(self, method: str, path: str, answer: httpx.Response, place: str = "") -> None:
        """Hold an answer that was given to this against the document."""
        case = self._schema[path][method].Case(path_parameters={"id": place})
        case.validate_response(answer, checks=CONFORMS)

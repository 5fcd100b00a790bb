"""Check the answers of a host against the host's own /openapi.json."""

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
    """The OpenAPI document of a host, with checks that the host's answers match the document."""

    @classmethod
    async def of(cls, http: httpx.AsyncClient) -> Self:
        """Load the document of this host."""
        return cls(http, (await http.get("/openapi.json")).json())

    def __init__(self, http: httpx.AsyncClient, document: dict[str, Any]) -> None:
        self._http = http
        self._schema = schemathesis.openapi.from_dict(document)

    async def ask(self, method: str, path: str, place: str = "", **options: Any) -> httpx.Response:
        """Send a request and check the answer against the document: status, type, headers, body."""
        answer = await self._http.request(method, path.replace("{id}", place), **options)
        self.hold(method, path, answer, place)
        return answer

    def hold(self, method: str, path: str, answer: httpx.Response, place: str = "") -> None:
        """Check a given answer to this request against the document."""
        case = self._schema[path][method].Case(path_parameters={"id": place})
        case.validate_response(answer, checks=CONFORMS)

"""GET /chains: what this gateway runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import answered, json_answer
from gateway.gateway import Gateway


@answered("/chains")
async def chains(gateway: Gateway, request: Request) -> Response:
    """Names, stages, and the JSON Schema of each chain's input: null for a chain that takes any JSON."""
    await gateway.auth.owner(request.headers)
    listed = [
        {"name": name, "stages": list(stages), "input": gateway.inputs.schema(name)}
        for name, stages in sorted(gateway.chains.items())
    ]
    return json_answer({"chains": listed})

"""GET /chains: list the chains that this gateway runs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.streams.service import Gateway
from gateway.web import request_head
from gateway.web.answers import answered, json_answer


@answered("/chains")
async def chains(gateway: Gateway, request: Request) -> Response:
    """Return the default chain, and for each chain its name, its stages, and the schema of its input.

    A schema is a JSON Schema. It is null for a chain that takes any JSON.

    A chain that declares its params has the JSON Schema of the params, too.
    """
    await request_head.owner(gateway, request)
    listed = []
    for name, stages in sorted(gateway.chains.items()):
        told = {"name": name, "stages": list(stages), "input": gateway.inputs.schema(name)}
        params = gateway.inputs.params(name)
        listed.append(told if params is None else {**told, "params": params})
    return json_answer({"default": gateway.settings.default_chain, "chains": listed})

"""Serves the scripted model.

    python -m tests.chains.mock_server

listens on a free port of loopback and prints it.
"""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from tests.chains import scripts  # noqa: F401  # they register with the model
from tests.chains.mock_anthropic import anthropic
from tests.chains.mock_openai import chat, embeddings
from tests.chains.mock_responses import responses

app = Starlette(
    routes=[
        Route("/{run}/v1/chat/completions", chat, methods=["POST"]),
        Route("/{run}/openai/deployments/{d}/chat/completions", chat, methods=["POST"]),
        Route("/{run}/v1/responses", responses, methods=["POST"]),
        Route("/{run}/v1/embeddings", embeddings, methods=["POST"]),
        Route("/{run}/v1/messages", anthropic, methods=["POST"]),
    ]
)


if __name__ == "__main__":
    bound = socket.create_server(("127.0.0.1", 0))
    print(bound.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical")).run(sockets=[bound])

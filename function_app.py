"""Functions host."""

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route("ping", methods=[func.HttpMethod.GET])
async def ping(req: Request) -> Response:
    """Answer."""
    return Response("pong")

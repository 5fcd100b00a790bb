"""Host 1: Azure Functions. Decorators and one await each; the handlers are those of every host."""

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

from gateway import handlers
from gateway.gateway import Gateway
from gateway.settings import Settings
from workers.chains.registry import Registry
from workers.trigger import Trigger

registry = Registry(Settings.from_env())
gateway = Gateway(registry.settings, registry.catalogue())
trigger = Trigger(gateway, registry)
app = func.FunctionApp(http_auth_level=func.AuthLevel.ANONYMOUS)


@app.route("stream", methods=["POST"])
async def create(req: Request) -> Response:
    """Start a stream."""
    return await handlers.create(gateway, req)


@app.route("stream/{id}", methods=["GET"])
async def follow(req: Request) -> Response:
    """Follow a stream."""
    return await handlers.follow(gateway, req)


@app.route("stream/{id}", methods=["DELETE"])
async def cancel(req: Request) -> Response:
    """Cancel a stream."""
    return await handlers.cancel(gateway, req)


@app.route("api/http_trigger", methods=["POST"])
async def http_trigger(req: Request) -> Response:
    """Answer as the original sample did."""
    return await handlers.http_trigger(gateway, req)


@app.route("health", methods=["GET"])
async def health(req: Request) -> Response:
    """Tell that this process is alive."""
    return await handlers.health(gateway, req)


@app.route("/", methods=["GET"])
async def page(req: Request) -> Response:
    """Show the page."""
    return await handlers.page(gateway, req)


@app.queue_trigger(arg_name="message", queue_name="%GATEWAY_QUEUE_NAME%", connection="AzureWebJobsStorage")
async def work(message: func.QueueMessage) -> None:
    """Run a job."""
    await trigger.run(message.get_body())

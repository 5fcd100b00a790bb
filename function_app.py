"""Host 1: Azure Functions. Decorators and one await each; the handlers are those of every host.

What starts or ends work needs a function key, unless GATEWAY_AUTH says who may ask; without it, following a
stream needs its id, which nobody can guess.
"""

import asyncio
from pathlib import Path

import azure.functions as func
from azurefunctions.extensions.http.fastapi import Request, Response

from gateway import formats
from gateway.azure.function_timeout import limited
from gateway.hosts import functions_extension
from gateway.observe import telemetry
from gateway.runtime.settled import settle
from gateway.settings import Settings
from gateway.streams.service import Gateway
from gateway.web import catalogue, openapi_document, pages, probes, streams
from workers.chains.registry import Registry
from workers.delivery.functions import Trigger

# At the latest a run lets go of its stream a minute before the host's functionTimeout.
settings = limited(Settings.from_env(run_budget=600.0), Path(__file__).parent)
if settings.queue != "azure-storage":
    raise ValueError(
        "GATEWAY_QUEUE must be azure-storage on Azure Functions: its queue trigger reads no other"
    )
if settings.metrics and not settings.metrics_key:
    raise ValueError(
        "GATEWAY_METRICS needs GATEWAY_METRICS_KEY on Azure Functions: everybody reaches /metrics"
    )
telemetry.quiet(settings)
registry = Registry(settings, loaded=settle)
end_telemetry = telemetry.configure(registry.settings)
gateway = Gateway(
    registry.settings, registry.catalogue(), schemas=registry.schemas(), params=registry.params()
)
trigger = Trigger(gateway, registry)
gateway.direct_start = trigger.start


class Process:
    """What ends when the platform takes the instance away."""

    async def let_go(self) -> None:
        """Others get the jobs, then readers are sent away to come back."""
        try:
            await trigger.hand_over()
        finally:
            await gateway.end_readers()

    async def close(self) -> None:
        """Close the connections and what chains have opened, and send what telemetry holds."""
        await asyncio.gather(
            gateway.close(),
            registry.close(functions_extension.CHAINS_SECONDS),
            asyncio.to_thread(end_telemetry),
        )


functions_extension.install(Process())
OPEN = func.AuthLevel.ANONYMOUS
app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION if registry.settings.is_open else OPEN)


@app.route("stream", methods=["POST"])
async def create(req: Request) -> Response:
    """Start a stream."""
    return await streams.create(gateway, req)


@app.route("stream/{id}", methods=["GET", "HEAD"], auth_level=OPEN)
async def follow(req: Request) -> Response:
    """Follow a stream."""
    return await streams.follow(gateway, req)


@app.route("stream/{id}", methods=["DELETE"])
async def cancel(req: Request) -> Response:
    """Cancel a stream."""
    return await streams.cancel(gateway, req)


@app.route("stream/{id}/retry", methods=["POST"])
async def retry(req: Request) -> Response:
    """Try a failed stream again."""
    return await streams.retry(gateway, req)


@app.route("stream/{id}/resume", methods=["POST"])
async def resume(req: Request) -> Response:
    """Answer what a stream has asked."""
    return await streams.resume(gateway, req)


@app.route("stream/{id}/token", methods=["POST"])
async def token(req: Request) -> Response:
    """Give a token that lets its bearer follow a stream."""
    return await streams.token(gateway, req)


@app.route("api/http_trigger", methods=["POST"])
async def http_trigger(req: Request) -> Response:
    """Answer as the original sample did."""
    return await streams.http_trigger(gateway, req)


@app.route("stream", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_create(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("stream/{id}", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_stream(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("stream/{id}/retry", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_retry(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("stream/{id}/resume", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_resume(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("stream/{id}/token", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_token(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("api/http_trigger", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_http_trigger(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("chains", methods=["OPTIONS"], auth_level=OPEN)
async def preflight_chains(req: Request) -> Response:
    """Tell a page of another origin whether it may ask."""
    return await streams.preflight(gateway, req)


@app.route("chains", methods=["GET", "HEAD"])
async def chains(req: Request) -> Response:
    """List the chains."""
    return await catalogue.chains(gateway, req)


@app.route("health", methods=["GET", "HEAD"], auth_level=OPEN)
async def health(req: Request) -> Response:
    """Tell that this process is alive."""
    return await probes.health(gateway, req)


@app.route("ready", methods=["GET", "HEAD"], auth_level=OPEN)
async def ready(req: Request) -> Response:
    """Tell whether this process can serve."""
    return await probes.ready(gateway, req)


@app.route("metrics", methods=["GET", "HEAD"], auth_level=OPEN)
async def metrics(req: Request) -> Response:
    """Show what this process counts."""
    return await probes.metrics(gateway, req)


@app.route("openapi.json", methods=["GET", "HEAD"], auth_level=OPEN)
async def openapi(req: Request) -> Response:
    """Describe all this."""
    return await (
        openapi_document.openapi_with_function_key if settings.is_open else openapi_document.openapi
    )(gateway, req)


@app.route("/", methods=["GET", "HEAD"], auth_level=OPEN)
async def page(req: Request) -> Response:
    """Show the page."""
    return await pages.page(gateway, req)


@app.route("web/{name}", methods=["GET", "HEAD"], auth_level=OPEN)
async def part(req: Request) -> Response:
    """Give a part of the page."""
    return await pages.part(gateway, req)


@app.route("web/vendor/{name}", methods=["GET", "HEAD"], auth_level=OPEN)
async def part_vendor(req: Request) -> Response:
    """Give a part of the page that others wrote."""
    return await pages.part(gateway, req)


def serve(route: formats.Route) -> None:
    """Answer at a foreign format's path."""

    async def answer(req: Request) -> Response:
        return await route.handler(gateway, req)

    answer.__name__ = route.name
    trigger = app.route(
        route.path.removeprefix("/"), methods=list(route.methods), auth_level=OPEN if route.open else None
    )
    trigger(answer)


for each in formats.ROUTES:
    serve(each)


@app.queue_trigger(arg_name="message", queue_name="%GATEWAY_QUEUE_NAME%", connection="AzureWebJobsStorage")
async def work(message: func.QueueMessage) -> None:
    """Run a job."""
    await trigger.run(message.get_body())


@app.queue_trigger(
    arg_name="message", queue_name="%GATEWAY_QUEUE_NAME%-poison", connection="AzureWebJobsStorage"
)
async def give_up(message: func.QueueMessage) -> None:
    """Look after a job whose message was delivered in vain too often."""
    await trigger.give_up(message.get_body())


@app.timer_trigger(arg_name="timer", schedule="%GATEWAY_SWEEP_SCHEDULE%", use_monitor=False)
async def sweep(timer: func.TimerRequest) -> None:
    """Have the jobs that nobody holds delivered again."""
    await trigger.sweep()

"""Durable Functions with a stream that its readers can follow: the triggers. The steps are in steps.py."""

import azure.durable_functions as df
import azure.functions as func
import steps

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route("report", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Start a report on a topic; its stream's address, which the gateway serves."""
    topic = req.get_body().decode()
    instance = await client.schedule_new_orchestration("report", input=topic)
    return func.HttpResponse(await steps.address({"key": instance}), status_code=202)


app.orchestration_trigger(context_name="ctx", orchestration="report")(steps.report)


@app.activity_trigger(input_name="given", activity="write_outline")
async def write_outline(given: dict) -> str:
    """The first stage."""
    return await steps.write_outline(given)


@app.activity_trigger(input_name="given", activity="write_text")
async def write_text(given: dict) -> str:
    """The second stage, and the end."""
    return await steps.write_text(given)


@app.activity_trigger(input_name="given", activity="give_up")
async def give_up(given: dict) -> None:
    """No attempt is left."""
    await steps.give_up(given)


@app.activity_trigger(input_name="given", activity="address")
async def address(given: dict) -> str:
    """Where the gateway shows the stream."""
    return await steps.address(given)

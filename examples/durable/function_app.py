"""Durable Functions with a stream that readers can follow: the triggers. The steps are in steps.py."""

import azure.durable_functions as df
import azure.functions as func
import steps

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route("report", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Start a report on a topic; return the gateway's URL of its stream."""
    topic = req.get_body().decode()
    instance = await client.schedule_new_orchestration("report", input=topic)
    return func.HttpResponse(await steps.address({"key": instance}), status_code=202)


app.orchestration_trigger(context_name="ctx", orchestration="report")(steps.report)


@app.activity_trigger(input_name="given", activity="write_outline")
async def write_outline(given: dict) -> str:
    """Write the outline, which is the first stage."""
    return await steps.write_outline(given)


@app.activity_trigger(input_name="given", activity="write_text")
async def write_text(given: dict) -> str:
    """Write the text, which is the second stage, and end the stream."""
    return await steps.write_text(given)


@app.activity_trigger(input_name="given", activity="give_up")
async def give_up(given: dict) -> None:
    """End the stream as failed, because no attempt is left."""
    await steps.give_up(given)


@app.activity_trigger(input_name="given", activity="address")
async def address(given: dict) -> str:
    """Return the gateway's URL of the stream."""
    return await steps.address(given)

import httpx
from httpx_sse import aconnect_sse

from tests.support.model_server import ModelServer, script
from tests.support.processes import GatewayProcess


async def test_ask_and_follow(redis_url: str) -> None:
    async with ModelServer() as model:
        env = {"REDIS_URL": redis_url, **model.environment()}
        async with GatewayProcess("all", env) as gateway, httpx.AsyncClient(base_url=gateway.url) as client:
            answer = await client.post("/stream", json={"user": script(["a", "b", "c"])})
            assert answer.status_code == 202, answer.text
            where = answer.headers["location"]
            kinds, text = [], ""
            async with aconnect_sse(client, "GET", where) as source:
                async for event in source.aiter_sse():
                    kinds.append(event.event)
                    if event.event == "message":
                        text += event.json()["delta_content"]
            assert kinds == ["start", "stage", "message", "message", "message", "stage", "done"]
            assert text == "abc"
            again = await client.get(
                where, headers={"last-event-id": event.id, "accept": "text/event-stream"}
            )
            assert again.status_code == 204
            document = (await client.get(where, headers={"accept": "application/json"})).json()
            assert (document["status"], document["text"]) == ("done", "abc")

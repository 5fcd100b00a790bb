"""The server itself and its assistants, with the requests of the Studio and agent-chat-ui."""

from __future__ import annotations

from conformance.cases import case, normal, say


@case("info", "server")
async def _(at):
    answer = await at.client.http.client.get("/info")
    at.saw["status"] = answer.status_code
    told = answer.json() if answer.status_code == 200 else {}
    at.saw["version"] = isinstance(told.get("version"), str)
    at.saw["assistants"] = (told.get("flags") or {}).get("assistants")


@case("ok", "server")
async def _(at):
    answer = await at.client.http.client.get("/ok")
    at.saw["ok"] = [answer.status_code, answer.json().get("ok") if answer.status_code == 200 else None]


async def one(at, graph):
    """Return the assistant of a graph."""
    [found] = await at.client.assistants.search(graph_id=graph, limit=10)
    return found


@case("assistants_search", "assistants")
async def _(at):
    found = await at.client.assistants.search(limit=100)
    ours = ("plain", "helper", "asker", "facts", "nested", "fails", "ticks")
    at.saw["graphs"] = sorted(a["graph_id"] for a in found if a["graph_id"] in ours)
    at.saw["by graph"] = (await one(at, "facts"))["graph_id"]
    at.saw["has"] = sorted(
        set(found[0])
        & {"assistant_id", "graph_id", "name", "config", "metadata", "version", "created_at", "updated_at"}
    )


@case("assistant_get", "assistants")
async def _(at):
    found = await one(at, "plain")
    again = await at.client.assistants.get(found["assistant_id"])
    at.saw["same"] = again["assistant_id"] == found["assistant_id"]
    at.saw["graph"], at.saw["name"] = again["graph_id"], again["name"]


@case("assistant_runs", "assistants")
async def _(at):
    """Start a run with the id from the search."""
    found = await one(at, "plain")
    at.saw["wait"] = normal.state(
        await at.client.runs.wait(await at.thread(), found["assistant_id"], input=say("say one"))
    )


@case("assistant_graph", "assistants")
async def _(at):
    told = await at.client.assistants.get_graph((await one(at, "asker"))["assistant_id"])
    at.saw["nodes"] = sorted(str(n["id"]) for n in told["nodes"])
    at.saw["edges"] = sorted(f"{e['source']} -> {e['target']}" for e in told["edges"])


@case("assistant_schemas", "assistants")
async def _(at):
    for graph in ("facts", "plain"):
        told = await at.client.assistants.get_schemas((await one(at, graph))["assistant_id"])
        at.saw[graph] = {
            k: sorted((told.get(k) or {}).get("properties", ()))
            for k in ("input_schema", "output_schema", "state_schema")
        }

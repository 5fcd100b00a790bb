"""Params are only a caller's wishes.

They never set who the caller is, nor where an operator's key is sent. Faults 72 and 73, for each way in which
a client can give params: our API, LangGraph's format, OpenAI's format, the AI SDK's format. The chains are
modules of an operator, and one of them is the example of docs/chains.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.settings import Settings
from gateway.streams.params import own, sensitive
from gateway.streams.start import parse_start
from tests.callers import ALICE, BOB, TOKEN_KEYS, by_key, keys_file
from tests.hosts import EVENTS, JSON, Host, Wire, uvicorn_host
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY
from tests.support.redis_server import RedisServer

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAINS = """
import json
from langchain_core.runnables import RunnableConfig, RunnableLambda
from workers.chains.registry import chain

def tell(given, config: RunnableConfig):
    told = {name: value for name, value in config["configurable"].items() if name[:1] != "_"}
    assert len(told.pop("holdfast_idempotency_key")) == 64
    return json.dumps(told)

@chain("told")
def told(settings):
    return RunnableLambda(tell)

@chain("page", params=("page_url",))
def page(settings):
    return RunnableLambda(tell)

@chain("closed", params={"tone": {"type": "string", "maxLength": 3}, "page_url": {}})
def closed(settings):
    return RunnableLambda(tell)

@chain("node")
def node(settings):
    from langgraph.graph import StateGraph
    graph = StateGraph(dict)
    graph.add_node("tell", lambda state, config: {"said": tell(state, config)})
    graph.add_edge("__start__", "tell")
    return graph.compile()

@chain("any")
def any_model(settings):
    from langchain.chat_models import init_chat_model
    return init_chat_model(settings.model, model_provider="openai", configurable_fields="any", max_retries=0)

@chain("prefixed")
def prefixed(settings):
    from langchain.chat_models import init_chat_model
    return init_chat_model(
        settings.model,
        model_provider="openai",
        configurable_fields="any",
        config_prefix="first",
        max_retries=0,
    )
"""
FORGED = {
    "holdfast_owner": "key:bob",
    "holdfast_stream_id": "00AAAAAAAAAAAAAAAAAAAAAA",
    "holdfast_admin": True,
    "holdfast_idempotency_key": "bobs",
    "langgraph_auth_user": {"identity": "bob"},
    "langgraph_auth_user_id": "bob",
    "langgraph_auth_permissions": ["all"],
    "__pregel_checkpointer": "x",
    "thread_id": "bobs",
    "thread_ts": "1",
    "checkpoint_id": "bobs",
    "checkpoint_ns": "bobs",
    "checkpoint_map": {"": "bobs"},
    "assistant_id": "bobs",
    "graph_id": "bobs",
    "run_id": "bobs",
    "tone": "dry",
    "nested": {"langgraph_auth_user_id": "bob", "kept": [1, {"holdfast_owner": "key:bob", "kept": 2}]},
}
KEPT = {"tone": "dry", "nested": {"kept": [1, {"kept": 2}]}}
ALICES = {"holdfast_owner": "key:alice", "holdfast_attempt": 1, "holdfast_metadata": {}}


def example() -> str:
    """Return the module that docs/chains.md shows for a history by owner."""
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/chains.md").read_text(), re.DOTALL)
    [found] = [block for block in blocks if "holdfast_owner" in block]
    return str(found)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def keyed_host(
    model: ModelServer, store: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Host]:
    """Run a host on which Alice and Bob have API keys."""
    folder: Path = tmp_path_factory.mktemp("params")
    (folder / "owners_chains.py").write_text(CHAINS)
    (folder / "owners_example.py").write_text(example())
    (folder / "keys").write_text(keys_file((ALICE, "alice"), (BOB, "bob")))
    settings = {
        "GATEWAY_AUTH": "keys",
        "GATEWAY_KEYS_FILE": str(folder / "keys"),
        "GATEWAY_TOKEN_KEYS": TOKEN_KEYS[0],
        "GATEWAY_QUEUE_NAME": "jobs-with-params",
        "GATEWAY_CHAINS": "owners_chains,owners_example",
        "PYTHONPATH": str(folder),
    }
    async with uvicorn_host(model, store.url, "all", **settings) as host:
        yield host


async def post(host: Host, path: str, body: Any, key: str = ALICE) -> httpx.Response:
    return await host.http.post(path, json=body, headers={**by_key(key), **EVENTS})


def said(answer: httpx.Response) -> Any:
    """Return the text of one of our streams, parsed as JSON."""
    assert answer.status_code == 200, answer.text
    wire = Wire(answer.content)
    told = zip(wire.events, wire.data, strict=True)
    return json.loads("".join(json.loads(data)["delta_content"] for kind, data in told if kind == "message"))


@pytest.mark.parametrize("chain", ["told", "page"])
async def test_fault_72_our_api(keyed_host: Host, chain: str) -> None:
    body = {"input": 1, "chain": chain, "params": FORGED, "metadata": FORGED}
    answer = await post(keyed_host, "/stream", body)
    trusted = {"holdfast_stream_id": answer.headers["x-stream-id"], "holdfast_metadata": KEPT}
    assert said(answer) == KEPT | ALICES | trusted


async def test_fault_72_a_graphs_node_is_told_the_same(keyed_host: Host) -> None:
    answer = await post(keyed_host, "/stream", {"input": {"a": 1}, "chain": "node", "params": FORGED})
    stream_id = answer.headers["x-stream-id"]
    [result] = [json.loads(data) for data in Wire(answer.content).data if b'"result"' in data]
    told = json.loads(result["data"]["said"])
    assert told["holdfast_owner"] == "key:alice"
    assert told["holdfast_stream_id"] == stream_id
    assert told["thread_id"] == f"stream:{stream_id}"  # The shipped checkpointer uses this thread id.
    assert {name for name in told if name.startswith("langgraph_")} == set()
    assert told.keys() & {"thread_ts", "assistant_id", "graph_id", "run_id", "holdfast_admin"} == set()
    assert told["nested"] == KEPT["nested"]


@pytest.mark.parametrize("where", ["configurable", "context"])
async def test_fault_72_langgraphs_format(keyed_host: Host, where: str) -> None:
    given = {"config": {"configurable": FORGED}} if where == "configurable" else {"context": FORGED}
    body = {"assistant_id": "told", "input": {"messages": [{"role": "user", "content": "x"}]}, **given}
    answer = await keyed_host.http.post("/runs/wait", json=body, headers=by_key(ALICE))
    assert answer.status_code == 200, answer.text
    told = json.loads(answer.json()["messages"][-1]["content"])
    assert told.pop("holdfast_stream_id") != FORGED["holdfast_stream_id"]
    assert told == KEPT | ALICES


async def test_fault_72_openais_metadata_and_fields(keyed_host: Host) -> None:
    metadata = {"holdfast_owner": "key:bob", "langgraph_auth_user_id": "bob"}
    asked = {"model": "told", "metadata": metadata, "user": "bob"}
    chat = {**asked, "messages": [{"role": "user", "content": "x"}]}
    answer = await keyed_host.http.post("/v1/chat/completions", json=chat, headers=by_key(ALICE))
    told = json.loads(answer.json()["choices"][0]["message"]["content"])
    told.pop("holdfast_stream_id")
    assert told == {"user": "bob"} | ALICES
    answer = await keyed_host.http.post("/v1/responses", json={**asked, "input": "x"}, headers=by_key(ALICE))
    told = json.loads(answer.json()["output"][0]["content"][0]["text"])
    told.pop("holdfast_stream_id")
    assert told == {"user": "bob"} | ALICES
    unknown = await keyed_host.http.post(
        "/v1/responses", json={**asked, "input": "x", "holdfast_owner": "key:bob"}, headers=by_key(ALICE)
    )
    assert unknown.status_code == 422


async def test_fault_72_the_ai_sdks_body(keyed_host: Host) -> None:
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}
    body = {"id": "chat-72", "messages": [message], "chain": "told", "params": FORGED}
    answer = await post(keyed_host, "/api/chat", body)
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    text = "".join(frame.get("delta", "") for frame in map(json.loads, frames))
    told = json.loads(text)
    told.pop("holdfast_stream_id")
    assert told == KEPT | ALICES | {"holdfast_metadata": {"chat": "chat-72"}}


async def test_fault_72_nothing_of_it_is_stored() -> None:
    start = parse_start({"input": 1, "chain": "told", "params": FORGED}, {"told": ["told"]})
    assert start.params == KEPT


async def test_fault_72_a_history_by_owner_is_its_owners(keyed_host: Host, model: ModelServer) -> None:
    async def asks(key: str, question: str, session: str) -> list[str]:
        """Return the messages that the model received; the question is the last one."""
        params = {"session_id": session, "holdfast_owner": "key:bob"}
        answer = await post(
            keyed_host,
            "/stream",
            {"input": {"question": question}, "chain": "remember", "params": params},
            key,
        )
        assert Wire(answer.content).events[-1] == "done"
        return [message["content"] for message in model.requests[-1]["messages"]]

    secret, again = script(["noted"], of="bob"), script(["yes"], of="bob too")
    assert await asks(BOB, secret, "bob") == [secret]
    assert await asks(BOB, again, "bob") == [secret, "noted", again]
    forged = script(["no"], of="alice")
    assert await asks(ALICE, forged, "bob") == [forged]


CREDENTIALS = (
    *("base_url", "openai_api_base", "api_key", "openai_api_key", "openai_proxy", "default_headers"),
    *("http_client", "http_async_client", "async_client", "azure_endpoint", "azure_ad_token", "endpoint_url"),
    *("aws_secret_access_key", "credentials", "client_options", "baseURL", "apiKey", "API-Key", "token"),
)


async def test_fault_73_a_credential_or_an_endpoint_is_422(keyed_host: Host) -> None:
    chain = "any"
    before = len(await keyed_host.redis.keys("*:job:*"))
    for name in (*CREDENTIALS, "first_base_url"):
        body = {"input": "x", "chain": chain, "params": {"temperature": 0, name: "http://127.0.0.1:1/v1"}}
        answer = await post(keyed_host, "/stream", body)
        assert (answer.status_code, answer.json().get("field")) == (422, f"params.{name}"), name
        assert "127.0.0.1" not in answer.text
    within = {"input": "x", "chain": chain, "params": {"model_kwargs": {"extra_headers": {"a": "b"}}}}
    assert (await post(keyed_host, "/stream", within)).json()["field"] == "params.model_kwargs.extra_headers"
    assert len(await keyed_host.redis.keys("*:job:*")) == before


async def test_fault_73_by_the_formats_too(keyed_host: Host) -> None:
    params = {"base_url": "http://127.0.0.1:1/v1"}
    messages = [{"role": "user", "content": "x"}]
    for given in ({"config": {"configurable": params}}, {"context": params}):
        body = {"assistant_id": "any", "input": {"messages": messages}, **given}
        answer = await keyed_host.http.post("/runs/wait", json=body, headers=by_key(ALICE))
        assert answer.status_code == 422, answer.text
    message = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}
    chat = {"id": "chat-73", "messages": [message], "chain": "any", "params": params}
    assert (await post(keyed_host, "/api/chat", chat)).status_code == 422
    openai = {"model": "any", "messages": messages, **params}
    answer = await keyed_host.http.post("/v1/chat/completions", json=openai, headers=by_key(ALICE))
    assert answer.status_code == 422


async def test_fault_73_the_operators_key_does_not_go_to_a_stranger(
    keyed_host: Host, model: ModelServer
) -> None:
    async with ModelServer() as stranger:
        for chain, name in (("any", "base_url"), ("any", "openai_api_base"), ("prefixed", "first_base_url")):
            body = {"user": script(["a"]), "chain": chain, "params": {name: f"{stranger.url}/v1"}}
            await post(keyed_host, "/stream", body)
        assert stranger.headers == []
    answer = await post(keyed_host, "/stream", {"user": script(["a"]), "chain": "any", "params": {"seed": 7}})
    assert Wire(answer.content).events[-1] == "done"
    # A harmless param stays as configurable as the chain's author made it.
    assert model.requests[-1]["seed"] == 7


async def test_fault_73_a_chains_author_may_let_it_through(keyed_host: Host) -> None:
    params = {"page_url": "https://example.com/"}
    told = said(await post(keyed_host, "/stream", {"input": 1, "chain": "page", "params": params}))
    assert told["page_url"] == "https://example.com/"
    refused = await post(keyed_host, "/stream", {"input": 1, "chain": "told", "params": params})
    assert (refused.status_code, refused.json()["field"]) == (422, "params.page_url")


async def test_of_a_chain_that_declares_its_params_others_are_422_in_each_format(keyed_host: Host) -> None:
    messages = [{"role": "user", "content": "x"}]
    part = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "x"}]}
    before = len(await keyed_host.redis.keys("*:job:*"))

    async def answers(params: dict[str, Any]) -> list[httpx.Response]:
        chat = {"id": "chat-closed", "messages": [part], "chain": "closed", "params": params}
        run = {"assistant_id": "closed", "input": {"messages": messages}}
        return [
            await post(keyed_host, "/stream", {"input": 1, "chain": "closed", "params": params}, BOB),
            await post(keyed_host, "/stream", {"user": "x", "chain": "closed", "context": params}, BOB),
            await post(keyed_host, "/api/chat", chat, BOB),
            await post(keyed_host, "/runs/wait", {**run, "config": {"configurable": params}}, BOB),
            await post(keyed_host, "/runs/wait", {**run, "context": params}, BOB),
        ]

    for params, field, rule in (
        ({"other": "x"}, "params.other", "is not a param of this chain"),
        ({"tone": "long"}, "params.tone", "must keep to maxLength: 3"),
        ({"tone": 1}, "params.tone", "must be of type string"),
        ({"base_url": "x"}, "params.base_url", "names a credential or an endpoint"),
    ):
        for answer in await answers(params):
            assert answer.status_code == 422, answer.text
            assert field in answer.text
            assert rule in answer.text
    asked = {"model": "closed", "messages": messages, "temperature": 1}
    answer = await keyed_host.http.post("/v1/chat/completions", json=asked, headers=by_key(BOB))
    assert (answer.status_code, "temperature" in answer.text) == (422, True)
    assert len(await keyed_host.redis.keys("*:job:*")) == before


async def test_what_a_chain_declares_is_let_through_and_listed(keyed_host: Host) -> None:
    params = {"tone": "dry", "page_url": "https://example.com/", "recursion_limit": 9, "thread_id": "gone"}
    told = said(await post(keyed_host, "/stream", {"input": 1, "chain": "closed", "params": params}))
    assert {name: told[name] for name in ("tone", "page_url")} == {
        "tone": "dry",
        "page_url": params["page_url"],
    }
    assert "thread_id" not in told
    listed = (await keyed_host.http.get("/chains", headers=by_key(BOB))).json()["chains"]
    declared = {one["name"]: one.get("params") for one in listed}
    tone = {"type": "string", "maxLength": 3}
    assert declared["closed"] == {"type": "object", "properties": {"tone": tone, "page_url": {}}}
    assert declared["page"] is declared["chat"] is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "temperature",
            "max_tokens",
            "max_output_tokens",
            "stop_token",
            "tokens",
            "seed",
            "user",
            "session_id",
        ),
        *(
            "client",
            "client_name",
            "key",
            "keywords",
            "knowledge_base",
            "url_count",
            "proximity",
            "secretary",
        ),
        *("hostess", "logit_bias", "reasoning_effort", "model", "top_p", "language", "", "_", "é"),
    ],
)
async def test_a_name_that_only_looks_so_is_let_through(name: str) -> None:
    assert sensitive({name: {"url": "https://example.com"}}) == ""
    assert own({name: 1}) == {name: 1}


async def test_names_are_judged_in_time_that_their_length_bounds() -> None:
    """The test measures the processor time of this thread.

    The limit is far above the time that the work takes.
    """
    import time

    worst = ["a_" * 100, "_" * 200, "aA" * 100, "client_" * 28, "x" * 200, "api_" * 50, "-" * 200]
    began = time.thread_time()
    for name in worst:
        for number in range(500):
            sensitive({f"{name[:196]}{number}": {}})
    assert time.thread_time() - began < 2


async def test_no_chain_that_ships_lets_a_credential_through() -> None:
    from workers.chains.registry import SHIPPED, Registry

    shipped = {name.rpartition(".")[2] for name in SHIPPED}
    params: dict[str, Any] = {name: Registry(Settings()).params()[name] for name in shipped}
    assert list(params.pop("demo")["properties"]) == ["seconds"]
    assert params == dict.fromkeys(shipped - {"demo"}, ())


async def test_the_status_document_by_key_has_the_metadata(keyed_host: Host) -> None:
    answer = await post(keyed_host, "/stream", {"input": 1, "chain": "told", "metadata": {"ticket": 7}})
    where = answer.headers["location"]
    document = await keyed_host.http.get(where, headers={**by_key(ALICE), **JSON})
    assert document.json()["metadata"] == {"ticket": 7}

"""The metrics of a real process at /metrics, and a dashboard that uses no other metrics."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.hosts import EVENTS, LIMIT_SECONDS
from tests.support.model_server import ModelServer, script
from tests.support.processes import REPOSITORY, GatewayProcess
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
DASHBOARD = json.loads((REPOSITORY / "infra/grafana/holdfast.json").read_text())
CANARY = "canary-2b91"
WORDS = {  # Words of PromQL, and labels in the queries.
    *("sum", "max", "rate", "by", "histogram_quantile", "label_values"),
    *("le", "code", "status", "route", "job", "instance", "failed", "outcome", "kind"),
}
MOST_SERIES = 500


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown() -> AsyncIterator[str]:
    """Yield the metrics of a process that has completed a stream, failed a stream and refused a request."""
    async with ModelServer() as model, RedisServer() as store:
        settings = {**model.environment(), "REDIS_URL": store.url, "GATEWAY_METRICS": "prometheus"}
        async with (
            GatewayProcess("all", settings) as process,
            httpx.AsyncClient(base_url=process.url, timeout=LIMIT_SECONDS) as http,
        ):
            for options in ({}, {"status": 400}):
                body = {"user": script([CANARY, "b"], **options)}
                assert (await http.post("/stream", json=body, headers=EVENTS)).status_code == 200
            for number in range(20):
                assert (await http.get(f"/{CANARY}/{number}")).status_code == 404
                assert (await http.get(f"/stream/{number:02x}{'A' * 22}")).status_code == 404
            answer = await http.get("/metrics")
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            yield answer.text


def names(text: str) -> set[str]:
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    variables = [
        item["query"]["query"] for item in DASHBOARD["templating"]["list"] if item["type"] == "query"
    ]
    return [*variables, *(target["expr"] for panel in panels() for target in panel["targets"])]


def asked(query: str) -> set[str]:
    """Return the metrics that a query uses.

    These are all its words except strings, variables and the words of PromQL.
    """
    bare = re.sub(r'"[^"]*"|\$\w+|\[[^]]*\]', "", query)
    return set(re.findall(r"[a-z_]{2,}", bare)) - WORDS


async def test_the_dashboard_asks_only_for_what_a_process_shows(shown: str) -> None:
    assert len(queries()) > 20
    missing = {query: asked(query) - names(shown) for query in queries()}
    assert not {query: lost for query, lost in missing.items() if lost}
    assert all(asked(query) for query in queries())


async def test_the_dashboard_leaves_none_of_our_metrics_out(shown: str) -> None:
    everywhere = " ".join(queries())
    ours = {re.sub("_(total|bucket|sum|count)$", "", name) for name in names(shown) if "holdfast" in name}
    assert not {name for name in ours if name not in everywhere}


async def test_the_manual_names_each_metric_and_no_other(shown: str) -> None:
    manual = (REPOSITORY / "docs/operations.md").read_text()
    named = {re.sub("_total$", "", name) for name in re.findall(r"holdfast_[a-z_]+", manual)}
    ours = {family.name for family in text_string_to_metric_families(shown) if "holdfast" in family.name}
    assert named == ours


async def test_it_is_of_the_shape_that_grafana_imports() -> None:
    assert DASHBOARD["title"] == "Holdfast"
    assert isinstance(DASHBOARD["schemaVersion"], int)
    assert {"from", "to"} <= DASHBOARD["time"].keys()
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    sources = [item["name"] for item in DASHBOARD["templating"]["list"] if item["type"] == "datasource"]
    for panel in panels():
        assert panel["title"]
        assert panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": f"${{{sources[0]}}}"}
        letters = [target["refId"] for target in panel["targets"]]
        assert len(letters) == len(set(letters)) > 0


async def test_its_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        taken |= cells


async def test_labels_are_few_whatever_is_asked(shown: str) -> None:
    assert CANARY not in shown
    assert shown.count("\n") < MOST_SERIES
    routes = set(re.findall(r'route="([^"]*)"', shown))
    assert routes <= {"/stream", "/stream/{id}", "none", "/metrics"}
    assert 'holdfast_refusals_total{code="no_route"} 20.0' in shown
    assert 'holdfast_refusals_total{code="not_found"} 20.0' in shown
    assert 'holdfast_streams_ended_total{code="model_invalid_request",status="failed"} 1.0' in shown
    assert 'holdfast_streams_started_total{chain="chat"} 2.0' in shown

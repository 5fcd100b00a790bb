"""A2A 1.0 on both hosts, by PyPI's `a2a-sdk` as it is, and by HTTP where no client shows it."""

from __future__ import annotations

import pytest
from a2a.types import a2a_pb2 as a2a

from tests.a2a_clients import Assembled, asked, client_of, sent, text, told
from tests.hosts import TEXTS, Host
from tests.support.model_server import script

pytest_plugins = ("tests.hosts",)
pytestmark = pytest.mark.asyncio(loop_scope="session")
WENT_WELL = ["TASK_STATE_SUBMITTED", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]


def url_of(host: Host) -> str:
    return str(host.http.base_url).rstrip("/")


async def test_a_message_is_a_task_whose_answer_is_one_artifact(host: Host) -> None:
    async with client_of(url_of(host)) as client:
        events = await sent(client, asked(text(script(TEXTS))))
        seen = Assembled(events)
        assert (seen.states, seen.texts) == (WENT_WELL, ["".join(TEXTS)])
        assert seen.whole == {seen.id}
        task = told(await client.get_task(a2a.GetTaskRequest(id=seen.id)))
    assert Assembled([{"task": task}]).texts == seen.texts
    assert (task["contextId"], task["status"]["state"]) == (seen.context, WENT_WELL[-1])

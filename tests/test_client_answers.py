"""Questions and answers with our own clients."""

from __future__ import annotations

import json

import pytest

from gateway.client import Gateway, Refused
from tests.support.processes import GatewayProcess
from tests.support.programs import node

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
CHAIN, GIVEN = "asks-and-dies", {"text": "q"}


def environment(redis_url: str) -> dict[str, str]:
    return {
        "REDIS_URL": redis_url,
        "GATEWAY_CHAINS": "tests.support.killing",
        "GATEWAY_MODEL": "none",
        "OPENAI_BASE_URL": "http://127.0.0.1:9",
    }


async def test_each_client_tells_what_is_asked_and_answers_it(redis_url: str) -> None:
    async with GatewayProcess("all", environment(redis_url)) as process:
        async with Gateway(process.url) as gateway:
            first = gateway.stream(chain=CHAIN, input=GIVEN)
            result = await first.result()
            assert (result.interrupted, first.interrupted) == (True, True)
            [question] = result.interrupts
            assert first.interrupts == [question]
            again = await gateway.follow(first.id, first.last_event_id).result()  # It had already ended.
            assert (again.interrupted, again.interrupts) == (True, [question])
            second = gateway.resume(first.id, {question["id"]: 1})
            [more] = (await second.result()).interrupts
            same = gateway.resume(first.id, [{"interrupt_id": question["id"], "response": 1}])
            await same.result()
            assert same.id == second.id
            with pytest.raises(Refused) as refused:
                await gateway.resume(first.id, {question["id"]: 2}).result()
            assert (refused.value.code, refused.value.problem["resumed_by"]) == (
                "already_answered",
                second.id,
            )
            last = await gateway.resume(second.id, {more["id"]: 2}).result()
            assert (last.text, last.interrupted) == ("first=1 second=2", False)
        asked = {"chain": CHAIN, "input": GIVEN, "answers": [1, 2]}
        lines = await node("resume.mjs", process.url, json.dumps(asked))
    assert lines == [
        {"interrupted": True, "asked": ["first?"], "text": "well then", "same": True},
        {"interrupted": True, "asked": ["second?"], "text": "", "same": True},
        {"interrupted": False, "asked": [], "text": "first=1 second=2", "same": True},
    ]

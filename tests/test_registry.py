"""Chains by name: marked, found, made once, outside of the event loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
from langchain_core.runnables import Runnable, RunnableLambda

from gateway.protocol.errors import Invalid
from gateway.settings import Settings
from gateway.streams.input_schemas import Inputs
from gateway.streams.start import Start
from workers.chains import registry
from workers.chains.registry import Registry, chain


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test marks is forgotten after it; what ships is marked by then."""
    Registry(Settings())
    monkeypatch.setattr(registry, "_marked", dict(registry._marked))


def runnable(_: Settings) -> Runnable[Any, Any]:
    return RunnableLambda(lambda given: given)


def test_chat_ships_with_one_stage_of_its_own_name() -> None:
    made = Registry(Settings())
    assert made.catalogue()["chat"] == ("chat",)
    assert made.find("no-such-chain") is None


async def test_a_chain_is_made_once_however_many_want_it_and_not_in_the_event_loop() -> None:
    threads = []

    def factory(_: Settings) -> Runnable[Any, Any]:
        threads.append(threading.current_thread())
        return RunnableLambda(lambda given: given)

    chain("once")(factory)
    made = Registry(Settings())
    got = await asyncio.gather(*(made.load("once") for _ in range(20)))
    assert len({id(one) for one in got}) == 1
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_factory_gets_the_settings() -> None:
    seen = []

    def factory(settings: Settings) -> Runnable[Any, Any]:
        seen.append(settings.model)
        return RunnableLambda(lambda given: given)

    chain("seen")(factory)
    await Registry(Settings(model="m")).load("seen")
    assert seen == ["m"]


async def test_a_factory_that_failed_is_tried_again_and_warming_up_only_tells(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries, text = [], "can" + "ary"

    def factory(_: Settings) -> Runnable[Any, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError(text)
        return RunnableLambda(lambda given: given)

    chain("third-time")(factory)
    made = Registry(Settings())
    await made.warm("third-time")
    assert "cannot be made" in caplog.text
    assert "canary" not in caplog.text
    with pytest.raises(RuntimeError):
        await made.load("third-time")
    await made.load("third-time")


async def test_an_unknown_chain_cannot_be_loaded() -> None:
    with pytest.raises(KeyError):
        await Registry(Settings()).load("no-such-chain")


def test_two_chains_of_one_module_cannot_share_a_name() -> None:
    def of_two_lines() -> list[Any]:
        """Of one qualified name, too."""
        first = lambda settings: runnable(settings)  # noqa: E731
        second = lambda settings: runnable(settings)  # noqa: E731
        return [first, second]

    first, second = of_two_lines()
    chain("twice")(first)
    with pytest.raises(ValueError, match="two chains are named twice"):
        chain("twice")(second)
    with pytest.raises(ValueError, match="two chains are named twice"):
        chain("twice")(runnable)
    chain("twice")(of_two_lines()[0])  # the same again


def test_one_name_is_one_modules() -> None:
    chain("mine")(runnable)
    chain("mine")(runnable)  # the module was imported again

    def theirs(settings: Settings) -> Runnable[Any, Any]:
        return runnable(settings)

    theirs.__module__ = "elsewhere"
    with pytest.raises(ValueError, match="two chains are named mine"):
        chain("mine")(theirs)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "a\0b", "x" * 201])
def test_fault_20_a_name_that_could_forge_a_frame_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a name may not hold"):
        chain(name)(runnable)


def test_modules_of_your_own_are_imported_for_their_chains(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "holdfast_own_chains.py").write_text(
        "from workers.chains.registry import chain\nchain('own')(lambda settings: None)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "own" in Registry(Settings(chains=" holdfast_own_chains , ")).catalogue()


def test_a_module_that_is_not_there_is_told_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for missing in ("no_such_module", "workers.no_such_module", "no_such_package.module"):
        with pytest.raises(ValueError, match=f"GATEWAY_CHAINS: there is no module {missing}"):
            Registry(Settings(chains=missing))
    (tmp_path / "holdfast_broken_chains.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError):  # with its stack: the mistake is inside
        Registry(Settings(chains="holdfast_broken_chains"))


class Style(TypedDict):
    tone: str
    long: NotRequired[bool]


def test_what_callers_may_set_is_a_list_a_mapping_or_a_type() -> None:
    tone = {"type": "string"}
    for name, given in (("names", ["page_url"]), ("mapping", {"tone": tone}), ("type", Style), ("all", ())):
        chain(name, params=given)(runnable)
    told = Registry(Settings()).params()
    assert (told["names"], told["all"]) == (("page_url",), ())
    assert told["mapping"] == {"type": "object", "properties": {"tone": tone}}
    inputs = Inputs(dict.fromkeys(told), told)
    inputs.check(Start("type", {"input": 1}, {"tone": "dry", "recursion_limit": 3}))
    for params, field in (({}, "tone"), ({"tone": "dry", "long": 1}, "long"), ({"tone": "d", "x": 1}, "x")):
        with pytest.raises(Invalid) as caught:
            inputs.check(Start("type", {"input": 1}, params))
        assert caught.value.extensions["field"] == f"params.{field}"


async def test_params_that_must_be_given_are_asked_for_where_there_are_none() -> None:
    chain("must", params=Style)(runnable)
    told = Registry(Settings()).params()
    with pytest.raises(Invalid):
        await Inputs({}, told).hold(Start("must", {"input": 1}, {}))


@pytest.mark.parametrize("wrong", ["tone", {"tone": "string"}, {"type": "object", "properties": {}}, 7, int])
def test_params_in_no_form_are_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="the params of wrong must be"):
        chain("wrong", params=wrong)


@pytest.mark.parametrize("name", ["thread_id", "holdfast_owner", "__x"])
def test_a_param_that_no_caller_can_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no caller can set the param {name}"):
        chain("wrong", params={name: {}})


def test_params_that_are_no_schema_are_told_at_the_start() -> None:
    with pytest.raises(ValueError, match="the params of chain c are no JSON Schema"):
        Inputs({}, {"c": {"type": "object", "properties": {"tone": {"type": "no-such-type"}}}})

"""A model's refusal and its citations, in each format's own fields."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import protocol
from gateway.formats.ai_sdk.projection import MOST_SOURCES, UIMessageStream
from gateway.formats.base.projection import Frame
from gateway.formats.langgraph.projection import EVENTS_OF_MODE, Run
from gateway.formats.openai.chat import Chat, Whole, finish_of
from gateway.formats.openai.output import Responses
from tests.test_formats_openai_projection import Tape, by_client, chunks, kinds, last, output_text

PAGE = {"type": "url_citation", "url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 2}
BARE = {"type": "web_search_result_location", "url": "https://b.example/", "cited_text": "b"}
NESTED = {"type": "url_citation", "url_citation": {"url": "https://c.example/", "title": "C"}}
OTHER = {"type": "char_location", "document_index": 0, "cited_text": "d"}


def refusing() -> Tape:
    tape = Tape()
    tape.began()
    tape.said("Well. ")
    tape.add(protocol.refusal("I ", stage="answer"))
    tape.add(protocol.refusal("must not.", stage="answer"))
    tape.finished()
    tape.done("refusal")
    return tape


def citing(*cited: Any) -> Tape:
    tape = Tape()
    tape.began()
    tape.said("so it is")
    tape.add(protocol.citations(cited, stage="answer"))
    below = protocol.citations([PAGE], stage="answer")
    below.data["within"] = "a tool"
    tape.add(below)
    tape.finished()
    tape.done()
    return tape


def test_a_chats_refusal_is_in_its_own_field() -> None:
    tape = refusing()
    deltas = [one["choices"][0]["delta"] for one in chunks(tape.frames(Chat()))[1:-2]]
    assert deltas == [{"content": "Well. "}, {"refusal": "I "}, {"refusal": "must not."}]
    assert chunks(tape.frames(Chat()))[-2]["choices"][0]["finish_reason"] == "stop"
    tape.frames(whole := Whole())
    assert (whole.message()["content"], whole.message()["refusal"]) == ("Well. ", "I must not.")


def test_a_chat_that_only_refuses_has_no_content() -> None:
    tape = Tape()
    tape.began()
    tape.add(protocol.refusal("No.", stage="answer"))
    tape.done("refusal")
    tape.frames(whole := Whole())
    assert (whole.message()["content"], whole.message()["refusal"]) == (None, "No.")


def test_a_refusal_without_words_is_the_content_filters() -> None:
    assert [finish_of("refusal", refuses=said) for said in (False, True)] == ["content_filter", "stop"]


def test_a_responses_refusal_is_a_part_of_its_own_kind() -> None:
    frames = refusing().frames(Responses())
    said, refused = last(frames)["output"]
    assert said["content"][0]["text"] == "Well. "
    assert refused["content"] == [{"type": "refusal", "refusal": "I must not."}]
    assert kinds(frames).count("refusal.delta") == 2
    [done] = [frame.data for frame in frames if frame.event == "response.refusal.done"]
    assert done["refusal"] == "I must not."
    assert by_client(frames).output[1].content[0].refusal == "I must not."
    assert output_text_without_refusal(frames) == "Well. "


def output_text_without_refusal(frames: list[Frame]) -> str:
    text: str = by_client(frames).output_text
    return text


def test_to_the_ai_sdk_a_refusal_is_text_and_why_it_ended() -> None:
    frames = [frame.data for frame in refusing().frames(UIMessageStream("id")) if frame.data != b"[DONE]"]
    assert "".join(one["delta"] for one in frames if one["type"] == "text-delta") == "Well. I must not."
    assert frames[-1]["finishReason"] == "content-filter"


def test_in_langgraph_it_is_text_and_where_langchain_puts_a_refusal() -> None:
    run = Run("run", "thread", {"messages": []}, tuple(EVENTS_OF_MODE))
    frames = refusing().frames(run)
    told = [frame.data[0] for frame in frames if frame.event == "messages"]
    assert [(one["content"], one["additional_kwargs"]) for one in told] == [
        ("Well. ", {}),
        ("I ", {"refusal": "I "}),
        ("must not.", {"refusal": "must not."}),
    ]
    [answer] = run.values()["messages"]
    assert (answer["content"], answer["additional_kwargs"]) == (
        "Well. I must not.",
        {"refusal": "I must not."},
    )


def test_a_chat_has_the_pages_that_are_cited() -> None:
    tape = citing(PAGE, BARE, NESTED, OTHER, 1)
    wanted = [
        {"type": "url_citation", "url_citation": {k: v for k, v in PAGE.items() if k != "type"}},
        {"type": "url_citation", "url_citation": {"url": "https://b.example/"}},
        NESTED,
    ]
    tape.frames(whole := Whole())
    assert whole.message()["annotations"] == wanted
    [told] = [
        one["choices"][0]["delta"]["annotations"]
        for one in chunks(tape.frames(Chat()))
        if isinstance(one, dict) and "annotations" in one["choices"][0]["delta"]
    ]
    assert told == wanted


def test_a_response_has_them_in_its_text() -> None:
    frames = citing(PAGE, BARE, OTHER).frames(Responses())
    [part] = last(frames)["output"][0]["content"]
    assert part["annotations"] == [
        PAGE,
        {
            "type": "url_citation",
            "title": "",
            "start_index": 8,
            "end_index": 8,
            "url": "https://b.example/",
        },
    ]
    added = [frame.data for frame in frames if frame.event == "response.output_text.annotation.added"]
    assert [(one["annotation_index"], one["annotation"]) for one in added] == list(
        enumerate(part["annotations"])
    )
    assert by_client(frames).output[0].content[0].annotations[0].url == PAGE["url"]
    assert output_text(last(frames)) == "so it is"


def test_what_a_text_cites_that_has_waited_comes_with_it() -> None:
    tape = Tape()
    tape.began()
    for run, name in ((1, "first"), (2, "second")):
        tape.began(name, run, "answer")
        tape.said(name, name, run)
        tape.add(protocol.citations([{**PAGE, "title": name}], stage=name, run=run))
    tape.finished("second", 2, "answer")
    tape.finished()
    tape.done()
    tape.frames(whole := Whole())
    assert whole.message()["content"] == "firstsecond"
    assert [one["url_citation"]["title"] for one in whole.message()["annotations"]] == ["first", "second"]
    answer = last(tape.frames(Responses()))["output"][-1]
    assert [one["title"] for one in answer["content"][0]["annotations"]] == ["second"]


@pytest.mark.parametrize("many", [1, 3 * MOST_SOURCES])
def test_the_ai_sdk_has_pages_as_sources_that_a_reset_names(many: int) -> None:
    tape = Tape()
    began = tape.began()
    tape.add(protocol.citations([PAGE] * many + [OTHER], stage="answer"))
    tape.reset(began)
    tape.done()
    frames = [frame.data for frame in tape.frames(UIMessageStream("id")) if frame.data != b"[DONE]"]
    sources = [one for one in frames if one["type"] == "source-url"]
    assert len(sources) == min(many, MOST_SOURCES)
    assert (sources[0]["url"], sources[0]["title"]) == (PAGE["url"], "A")
    [custom] = [one["data"] for one in frames if one["type"] == "data-custom"]
    assert (custom["name"], custom["data"][-1]) == ("citations", OTHER)
    [reset] = [one["data"]["parts"] for one in frames if one["type"] == "data-reset"]
    assert reset == [
        *(one["providerMetadata"]["holdfast"]["part"] for one in sources),
        custom["part"],
    ]


def test_in_langgraph_what_is_cited_is_custom() -> None:
    frames = citing(PAGE, OTHER).frames(Run("run", "thread", {"messages": []}, ("custom",)))
    [told] = [frame.data for frame in frames if frame.event == "custom"]
    assert told == {"name": "citations", "stage": "answer", "data": [PAGE, OTHER]}

"""The answer of the scripted model to each directive. `#do` contains a script in the message itself."""

from __future__ import annotations

import json
import re

from tests.chains.mock import Step, script, text


@script
def do(c):
    """`#do STEP then STEP ...`: one step for each turn. A step is `say TEXT` and `call TOOL {JSON}`, joined
    by ` & `.

    `$last` in a text is the answer of the last tool, `$n` the number of messages that the model was given.
    """
    steps = re.split(r"\s+then\s+", c.script)
    step = Step()
    for part in steps[min(c.turn, len(steps) - 1)].split(" & "):
        kind, _, rest = part.strip().partition(" ")
        if kind == "say":
            step.say = rest.replace("$last", c.last_tool[:300]).replace("$n", str(len(c.messages)))
        elif kind == "call":
            name, _, arguments = rest.partition(" ")
            step.calls.append((name, json.loads(arguments or "{}")))
    return step


@script
def echo(c):
    return Step(say=f"You said: {c.user.replace('#echo', '').strip()} (of {len(c.messages)} messages)")


@script
def roles(c):
    return Step(say="I was given: " + " ".join(m["role"] for m in c.messages))


@script
def story(c):
    return Step(say="Once upon a time there was a gateway that lost nothing at all.")


@script
def poem(c):
    return Step(say="Roses are red, logs are append-only, cursors are true.")


@script
def slow(c):
    return Step(say=" ".join(f"w{i}" for i in range(30)), pace=0.02)


@script
def slowb(c):
    return Step(say=" ".join(f"B{i}" for i in range(30)), pace=0.02)


@script
def long(c):
    return Step(say=" ".join(f"s{i}" for i in range(60)), pace=0.1)


@script
def reason(c):
    return Step(reason="First I think about it, then I decide.", say="The answer is 42.")


@script
def refuse(c):
    return Step(refusal="I cannot help with that request.", finish="")


@script
def declined(c):
    """Refuse in Anthropic's way: some words, and a stop reason."""
    return Step(say="I begin and then I stop", finish="refusal")


@script
def filtered(c):
    return Step(say="This begins well and then", finish="content_filter")


@script
def cut_short(c):
    return Step(say="A long answer that the limit has", finish="length")


@script
def prompt_blocked(c):
    inner = {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
    }
    said = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    error = {
        "message": said,
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": inner,
    }
    return Step(status=400, body={"error": error})


@script
def status(c):
    """`#status 401`: answer with that HTTP status."""
    return Step(status=int(c.script.split()[0]))


@script
def midfail(c):
    return Step(say="one two three four five six seven eight", cut=4)


@script
def flaky(c):
    """Break in the middle of the stream the first time."""
    return Step(say="alpha beta gamma delta", cut=2 if c.times() == 1 else 0)


@script
def flaky500(c):
    """Answer HTTP 500 the first two times."""
    return Step(status=500) if c.times() <= 2 else Step(say="third time lucky")


@script
def person(c):
    data = {"name": "Ada Lovelace", "age": 36, "tags": ["maths", "poetry"]}
    for tool in c.tools:
        return Step(calls=[(tool, data)])
    return Step(say=json.dumps(data))


@script
def weather(c):
    """Make two calls at once, then an answer."""
    if c.turn == 0:
        return Step(calls=[("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})])
    return Step(say="Paris is sunny and Rome is warm.")


@script
def oneweather(c):
    if c.turn == 0:
        return Step(say="Let me look.", calls=[("get_weather", {"city": "Paris"})])
    return Step(say=f"It says: {c.last_tool}")


@script
def loopy(c):
    return Step(calls=[(c.tools[0], {"q": f"again {c.turn}"})])


@script
def boss(c):
    """Act as a supervisor: call each of its agents in turn, then end.

    The agents are called by name, because langgraph-supervisor lists them in the order of a set, which
    differs between processes.
    """
    for tool in sorted(c.tools):
        if tool.startswith("transfer_to_") and tool not in c.called:
            return Step(calls=[(tool, {})])
    return Step(say="The supervisor concludes: all done.")


@script
def researcher(c):
    if (
        c.tools
        and c.turn == 0
        and not any("headcount" in text(m["content"]) for m in c.messages if m["role"] == "tool")
    ):
        return Step(calls=[("web_search", {"query": "headcount"})])
    return Step(say="Research says: many people work there.")


@script
def mathguy(c):
    if not any(text(m["content"]).startswith("5") for m in c.messages if m["role"] == "tool"):
        return Step(calls=[("add", {"a": 2, "b": 3})])
    return Step(say="The sum is five.")


@script
def plan(c):
    return Step(say="cats\ndogs\nbirds")


@script
def joke(c):
    return Step(say=f"A joke about {c.user.replace('#joke', '').strip()}: ha ha.")


@script
def best(c):
    return Step(say="The best is the first.")


@script
def summary(c):
    return Step(say="SUMMARY of the earlier talk.")


@script
def rewrite(c):
    return Step(say="standalone: how does resume work?")


@script
def fine(c):
    return Step(say="The expert thinks it is fine.")


@script
def caller(c):
    """Act as an agent that has another agent as its tool."""
    if c.turn == 0:
        return Step(calls=[(c.tools[0], {"query": "please #fine"})])
    return Step(say=f"Main says, the expert said: {c.last_tool}")


@script
def settings(c):
    return Step(say=f"model={c.request.get('model')} temperature={c.request.get('temperature')}")


@script
def picture(c):
    parts = [
        p for m in c.messages if m["role"] == "user" and isinstance(m["content"], list) for p in m["content"]
    ]
    return Step(say="I see: " + ",".join(str(p.get("type")) for p in parts))


@script
def sideeffect(c):
    if c.turn == 0:
        return Step(calls=[("send_email", {"to": "a@b.c", "body": "hi"})])
    return Step(say=f"The mail: {c.last_tool}")


@script
def clarify(c):
    vague = any("vague" in text(m["content"]) for m in c.messages)
    said = {
        "need_clarification": vague,
        "question": "Which year do you mean?",
        "verification": "Good, I begin.",
    }
    for tool in c.tools:
        return Step(calls=[(tool, said)])
    return Step(say=json.dumps(said))


@script
def research(c):
    """Act as a deep research: whether the question is clear, the brief, the topics, the findings, the report.

    The first answer about the scope is no JSON, so it is asked again.
    """
    form = ((c.request.get("response_format") or {}).get("json_schema") or {}).get("name")
    topic = c.user.rpartition(" ")[2]
    if form == "Scope" and c.times() == 1:
        return Step(say='{"is_vague": tr')
    if form == "Scope":
        said = {"is_vague": "vague" in c.user, "question": "Which year?", "answer": "Good, I begin."}
        return Step(say=json.dumps(said))
    if form == "Brief":
        return Step(say=json.dumps({"brief": f"how they differ, by {c.request['model']}"}))
    if "LookInto" in c.tools:
        topics = [("LookInto", {"topic": name}) for name in ("tea", "coffee", "milk")]
        rounds = [[("ponder", {"thought": "two topics"})], topics, [("AllFound", {})]]
        return Step(say="I plan." if c.turn == 0 else "", calls=rounds[min(c.turn, 2)])
    if "search" in c.tools and c.turn == 0:
        own = [("search", {"query": topic}), ("ponder", {"thought": f"about {topic}"})]
        return Step(say=f"I look for {topic}.", calls=own)
    # slow, so that two models write at once
    return Step(say=f"What I know: {c.user} {c.last_tool}", pace=0.02)

"""Sequences of LangChain's, as its tutorials write them."""

from __future__ import annotations

from langchain_core.callbacks import BaseCallbackHandler, adispatch_custom_event
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputParser,
    StrOutputParser,
)
from langchain_core.prompts import (
    ChatPromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
)
from langchain_core.runnables import chain as as_chain
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel, Field

from tests.chains.cases import case, llm, model_url, unreachable

QUESTION = {"question": "#story please"}


def asks(template: str):
    return ChatPromptTemplate.from_template(template) | llm() | StrOutputParser()


@case("prompt_model_parser", "plain", input=QUESTION)
def prompt_model_parser(settings):
    return (
        ChatPromptTemplate.from_messages([("system", "You help."), ("user", "{question}")])
        | llm()
        | StrOutputParser()
    )


@case("placeholder", "plain", user="#story hi")
def placeholder(settings):
    return (
        ChatPromptTemplate.from_messages([("system", "You help."), MessagesPlaceholder("messages")]) | llm()
    )


CONVERSATION = [
    {"role": "system", "content": "be kind"}, {"role": "user", "content": "#echo hi"},
    {"role": "assistant", "content": "yes"}, {"role": "user", "content": "#roles please"},
]  # fmt: skip


@case("conversation", "plain", messages=CONVERSATION)
def conversation(settings):
    return llm()


@case("parallel_then_model", "plain", input={"topic": "bears"})
def parallel_then_model(settings):
    both = {"joke": asks("#joke {topic}"), "poem": asks("#poem about {topic}")}
    return both | ChatPromptTemplate.from_template("#best of {joke} and {poem}") | llm() | StrOutputParser()


@case("branch", "plain", input={"topic": "anthropic", "question": "hi"})
def branch(settings):
    story, poem = (
        PromptTemplate.from_template(f"#{name} {{question}}") | llm() for name in ("story", "poem")
    )
    return RunnableBranch((lambda x: "anthropic" in x["topic"], story), poem) | StrOutputParser()


@case("route", "plain", input={"topic": "x", "question": "hi"}, note="a function that returns a Runnable")
def route(settings):
    story, poem = (
        PromptTemplate.from_template(f"#{name} {{question}}") | llm() for name in ("story", "poem")
    )
    given = {"topic": lambda x: x["topic"], "question": lambda x: x["question"]}
    return given | RunnableLambda(lambda x: story if x["topic"] == "a" else poem) | StrOutputParser()


@case("message_history", "plain", input={"question": "#echo my name is Bob"}, params={"session_id": "s1"})
def message_history(settings):
    kept: dict = {}
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You help."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    return RunnableWithMessageHistory(
        prompt | llm(), lambda session_id: kept.setdefault(session_id, InMemoryChatMessageHistory()),
        input_messages_key="question", history_messages_key="history",
    )  # fmt: skip


@case("configurable_fields", "plain", user="#settings x", params={"warmth": 0.3, "which": "gpt-other"})
def configurable_fields(settings):
    made = llm(temperature=0)
    return made.configurable_fields(
        temperature=ConfigurableField(id="warmth"), model_name=ConfigurableField(id="which")
    )


@case("params_in_function", "plain", user="x", params={"user_id": "u7", "colour": "blue"})
def params_in_function(settings):
    async def f(given, config: RunnableConfig):
        own = config["configurable"]
        return f"user_id={own.get('user_id')} colour={own.get('colour')} tags={config.get('tags')}"

    return RunnableLambda(f)


@case(
    "function_asks_model",
    "plain",
    user="#story now",
    note="no chunks: a function that awaits a model and changes its words",
)
def function_asks_model(settings):
    model = llm()

    async def f(given):
        return (await model.ainvoke(given)).content.upper()

    return RunnableLambda(f)


@case("sdk_in_generator", "plain", user="#story now", note="the openai package in an async generator")
def sdk_in_generator(settings):
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=model_url() + "/v1", api_key="x")

    async def gen(inputs):
        async for given in inputs:
            stream = await client.chat.completions.create(model="stub", messages=given, stream=True)
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    return RunnableGenerator(gen)


@case("sync_generator", "sync generator", input={"question": "#story now"}, oracle="ainvoke",
      note="@chain of a generator that is not async: astream cannot, stream and ainvoke can")  # fmt: skip
def sync_generator(settings):
    prompt, model = (
        ChatPromptTemplate.from_messages([("system", "You help."), ("human", "{question}")]),
        llm(),
    )

    @as_chain
    def chatbot(values):
        yield from model.stream(prompt.invoke(values))

    return chatbot


@case("fake_model", "plain", user="go")
def fake_model(settings):
    return GenericFakeChatModel(messages=iter([AIMessage("hello brave new world")] * 1000))


@case("fake_list", "plain", user="go")
def fake_list(settings):
    return FakeListChatModel(responses=["hello list"])


@case("text_model", "plain", user="go", note="a model of plain text")
def text_model(settings):
    return FakeStreamingListLLM(responses=["plain text completion"])


class Counting(BaseCallbackHandler):
    def on_llm_new_token(self, token, **kw):
        raise ValueError("a user's callback that raises")


@case("raising_callback", "plain", user="#story")
def raising_callback(settings):
    return (llm() | StrOutputParser()).with_config(callbacks=[Counting()], tags=["mine"], run_name="named")


@case("progress", "plain", user="go")
def progress(settings):
    async def f(given):
        for percent in (10, 50, 100):
            await adispatch_custom_event("progress", {"percent": percent})
        return "finished"

    return RunnableLambda(f)


class Person(BaseModel):
    """A person."""

    name: str = Field(description="the name")
    age: int
    tags: list[str] = []


@case("structured_by_tool", "structured", user="#person please")
def structured_by_tool(settings):
    return llm().with_structured_output(Person, method="function_calling")


@case("structured_by_schema", "structured", user="#person please")
def structured_by_schema(settings):
    return llm().with_structured_output(Person)


@case(
    "structured_parts",
    "structured",
    user="#person please",
    note="a JSON Schema: the object grows chunk by chunk",
)
def structured_parts(settings):
    return llm().with_structured_output(
        Person.model_json_schema() | {"title": "Person"}, method="function_calling"
    )


@case("structured_raw", "structured", user="#person please")
def structured_raw(settings):
    return llm().with_structured_output(Person, include_raw=True, method="function_calling")


@case("json_parser", "structured", user="#person please")
def json_parser(settings):
    return llm() | JsonOutputParser()


@case("structured_then_text", "structured", user="#person please")
def structured_then_text(settings):
    return llm().with_structured_output(Person) | (lambda p: f"{p.name} is {p.age}")


@case("structured_refused", "failures", user="#refuse x")
def structured_refused(settings):
    return llm().with_structured_output(Person)


@case("number", "values", input={"n": 3})
def number(settings):
    return RunnableLambda(lambda x: x["n"] * 2)


@case("nothing", "values", input={"n": 3})
def nothing(settings):
    return RunnableLambda(lambda x: None)


@case("mapped", "values", input=[1, 2, 3])
def mapped(settings):
    return RunnableLambda(lambda x: x + 1).map()


@case("models_over_list", "values", input=["#story", "#poem"])
def models_over_list(settings):
    return (llm() | (lambda x: x.content)).map()


class Ask(BaseModel):
    question: str
    k: int = 3


@case("input_model", "values", input={"question": "q", "k": 4}, schema=Ask)
def input_model(settings):
    return RunnableLambda(lambda given: f"question={given['question']} k={given['k']}")


@case("raises", "failures", input={"n": 3})
def raises(settings):
    def f(x):
        raise ValueError("no")

    return RunnableLambda(f)


@case("fallback_at_start", "failures", user="#echo hello")
def fallback_at_start(settings):
    return unreachable().with_fallbacks([llm()]) | StrOutputParser()


@case("fallback_after_400", "failures", input="#prompt_blocked q")
def fallback_after_400(settings):
    return llm().with_fallbacks([RunnableLambda(lambda x: "#poem") | llm()])


@case("model_retries", "failures", input="#flaky500 one")
def model_retries(settings):
    return llm(max_retries=2) | StrOutputParser()


@case(
    "breaks_once",
    "failures",
    input="#flaky one",
    note="with_retry does nothing once a chunk has come; the gateway tries again",
)
def breaks_once(settings):
    return llm().with_retry(stop_after_attempt=3) | StrOutputParser()


@case("key_refused", "failures", input="#status 401")
def key_refused(settings):
    return llm()


@case("no_such_model", "failures", input="#status 404")
def no_such_model(settings):
    return llm()


@case("two_at_once", "mapping", input={"topic": "bears"}, note="a RunnableParallel of two answers")
def two_at_once(settings):
    return RunnableParallel(joke=asks("#joke {topic}"), poem=asks("#poem about {topic}"))


@case("llm_chain", "mapping", input={"topic": "#story"}, needs="langchain_classic")
def llm_chain(settings):
    from langchain_classic.chains import LLMChain

    return LLMChain(llm=llm(), prompt=PromptTemplate.from_template("{topic}"))

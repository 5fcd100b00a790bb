"""Find out what input a chain accepts, from the chain itself, when its mark does not say it (`input=`).

A question by `user` or `messages` is converted to the form that the chain accepts
(`gateway/streams/forms.py`). LangChain knows the form of most chains: a prompt has variables, a graph has a
state, a function has a type. For a sequence, the first step decides. If the first step only passes its input
on, or only adds to it, the next step is examined too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from typing import Any, get_type_hints

from gateway.protocol.errors import WrongChain
from gateway.streams.forms import Form, Shape, Unclear, form_of, shape_of
from workers.each import Each
from workers.langchain.shape import is_graph

_log = logging.getLogger("holdfast.registry")
_MODEL = Shape(text=True, messages=True)
_TEXT = Shape(text=True)


def forms_of(
    name: str, schema: Any, parts: Mapping[str, Any], *, development: bool = False
) -> dict[str, Form | Unclear | None]:
    """Return, by stage, the form in which the stage gets a question. None: as messages.

    `schema` is the input that the mark declares; if it is given, it decides. If no rule decides, the log gets
    one line. In development this line has the names that are in the author's code.
    """
    alone = len(parts) == 1 and not any(isinstance(part, Each) for part in parts.values())
    if schema is not None:
        declared = form_of(shape_of(schema))
        return dict.fromkeys(parts, declared if isinstance(declared, Form) else None)
    if not alone:
        runnables = {
            stage: part.runnable if isinstance(part, Each) else part for stage, part in parts.items()
        }
        return {stage: _beside(name, stage, runnable) for stage, runnable in runnables.items()}
    [(stage, part)] = parts.items()
    found = form_of(taken_by(part))
    if isinstance(found, Unclear):
        found = found if development else replace(found, names=())
        _log.info("%s", _said(name, found))
    return {stage: found if isinstance(found, Form) or found.is_known else None}


def asked(name: str, form: Form | Unclear | None, messages: Sequence[Mapping[str, Any]]) -> Any:
    """Return the chain's input for these messages. Raises WrongChain when no rule decides."""
    if form is None:
        return messages
    if isinstance(form, Unclear):
        raise WrongChain(_said(name, form))
    try:
        return form.of(messages, _objects if form.objects else list)
    except ValueError as error:  # this exception's text is written by this product
        raise WrongChain(f"the chain {name} takes a question, and {error}") from None


def _objects(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
    from langchain_core.messages import convert_to_messages

    return list(convert_to_messages([dict(message) for message in messages]))


def _said(name: str, found: Unclear) -> str:
    if not found.is_known:
        return (
            f"the chain {name} does not say what it takes, so a question by `user` or `messages` reaches it "
            f'as a list of messages; for a text write @chain("{name}", input={{"type": "string"}})'
        )
    takes = f"a mapping with {', '.join(found.names)}" if found.names else "neither a text nor messages"
    key = found.names[0] if found.names else "…"
    return (
        f"the chain {name} takes {takes}, and no rule puts a question by `user` or `messages` into it: ask "
        f'by `input`, or name what a question is, as @chain("{name}", '
        f'input={{"type": "object", "required": ["{key}"]}})'
    )


def _beside(name: str, stage: str, part: Any) -> Form | None:
    """Return the form for a stage of a chain with several stages. None: it gets the messages as `input`.

    A graph whose state has neither `input` nor `messages` gets its own form (`workers/langchain/graph.py`).
    If a stage would convert the list of messages to a text, this is logged.
    """
    shape = taken_by(part)
    if is_graph(part) and not {"input", "messages"} & set(shape.names):
        found = form_of(shape)
        return found if isinstance(found, Form) else None
    asked = shape.names.get("input", Shape())
    if asked.text and not asked.messages:
        _log.info(
            "the stage %s of the chain %s takes `input` as a text, and a question by `user` or `messages` is "
            'a list of messages there: for its text write @chain("%s", …, input={"type": "string"})',
            *(stage, name, name),
        )
    return None


def taken_by(part: Any) -> Shape:
    """Return what a Runnable accepts, as far as the Runnable says it."""
    from langchain_core.language_models import BaseChatModel, BaseLLM
    from langchain_core.runnables import (
        RunnableBranch,
        RunnableParallel,
        RunnablePassthrough,
        RunnableSequence,
        RunnableWithFallbacks,
    )
    from langchain_core.runnables.base import RunnableBindingBase
    from langchain_core.runnables.configurable import DynamicRunnable
    from langchain_core.runnables.history import RunnableWithMessageHistory
    from langchain_core.runnables.passthrough import RunnableAssign

    if is_graph(part):
        return replace(_described(part), lenient=True)
    if isinstance(part, BaseChatModel):
        return _MODEL
    if isinstance(part, BaseLLM):
        return replace(_MODEL, plain=True)
    if isinstance(part, RunnableWithMessageHistory):
        return replace(_described(part), last=True)
    if isinstance(part, RunnableBindingBase):
        return _described(part) if part.custom_input_type is not None else taken_by(part.bound)
    if isinstance(part, DynamicRunnable):
        return taken_by(part.default)
    if isinstance(part, RunnableWithFallbacks):
        return taken_by(part.runnable)
    if isinstance(part, RunnableSequence):
        return _of_steps(part.steps)
    if isinstance(part, RunnableBranch):
        conditions = [one for pair in part.branches for one in pair]
        return _all_of([taken_by(one) for one in (*conditions, part.default)])
    if isinstance(part, RunnablePassthrough | RunnableParallel | RunnableAssign):
        return _of_steps([part])
    # a chain of LangChain's old `Chain` class
    if isinstance(keys := getattr(part, "input_keys", None), list):
        return Shape(mapping=True, required=dict.fromkeys(keys, Shape()))
    shape = _described(part)
    return shape if shape.text or shape.messages or shape.names else _written(part, shape)


def _of_steps(steps: Sequence[Any]) -> Shape:
    """Return what a sequence of steps accepts.

    It is what the first step accepts, or what the first step passes on to the next one.
    """
    from langchain_core.runnables import RunnableParallel, RunnablePassthrough, RunnableSequence
    from langchain_core.runnables.passthrough import RunnableAssign

    if not steps:
        return Shape()
    first, *rest = steps
    if isinstance(first, RunnableSequence):
        return _of_steps([*first.steps, *rest])
    if isinstance(first, RunnablePassthrough):
        return _of_steps(rest)
    if isinstance(first, RunnableParallel):
        return _all_of(_branches(first.steps__, _of_steps(rest)))
    if isinstance(first, RunnableAssign):
        made = first.mapper.steps__
        after = _of_steps(rest).required
        asked = {name: one for name, one in after.items() if name not in made}
        inner = _all_of([taken_by(one) for one in made.values() if not isinstance(one, RunnablePassthrough)])
        return Shape(mapping=True, required={**inner.required, **asked}, optional=inner.optional)
    return taken_by(first)


def _branches(steps: Mapping[str, Any], after: Shape) -> list[Shape]:
    """Return what each of these parallel steps accepts. All of them get the same input.

    If a step only passes its input on, it accepts what the next step (`after`) accepts.
    """
    from langchain_core.runnables import RunnablePassthrough

    found = []
    for name, one in steps.items():
        if isinstance(one, RunnablePassthrough):
            wanted = after.names.get(name, Shape())
            found.append(wanted if wanted.text or wanted.messages else _TEXT)
        else:
            found.append(taken_by(one))
    return found


def _all_of(shapes: Sequence[Shape]) -> Shape:
    """Return what all of these shapes accept."""
    known = [shape for shape in shapes if shape.is_known]
    if not known:
        return Shape()
    required = {name: one for shape in known for name, one in shape.required.items()}
    optional = {name: one for shape in known for name, one in shape.optional.items() if name not in required}
    mapping = all(shape.mapping for shape in known)
    made = Shape(
        text=all(shape.text for shape in known),
        messages=all(shape.messages for shape in known),
        mapping=mapping,
        objects=any(shape.objects for shape in known),
        required=required if mapping else {},
        optional=optional if mapping else {},
    )
    return made if made.is_known else Shape(other=True)


def _described(part: Any) -> Shape:
    """Return what LangChain says about the input of this part."""
    return _read(part.get_input_jsonschema)


def _written(part: Any, known: Shape) -> Shape:
    """Return what a function's own code says about its argument, when LangChain does not know it.

    LangChain cannot read an annotation that is kept as text (`from __future__ import annotations`) and names
    a type. It also does not read the keys that the code uses of an annotated argument.
    """
    from langchain_core.runnables.utils import get_function_first_arg_dict_keys
    from pydantic import TypeAdapter

    function = getattr(part, "func", None) or getattr(part, "afunc", None)
    if function is None:
        return known

    def schema() -> Any:
        hints, first = get_type_hints(function), next(iter(signature(function).parameters), "")
        return TypeAdapter(hints[first]).json_schema() if first in hints else {}

    shape = known if known.is_known else _read(schema)
    if shape.is_known and (shape.names or not shape.mapping):
        return shape
    keys = get_function_first_arg_dict_keys(function) or ()
    return Shape(mapping=True, required=dict.fromkeys(keys, Shape())) if keys else shape


def _read(schema: Callable[[], Any]) -> Shape:
    """Return the shape of a JSON Schema. For an author's type without a schema, nothing is known."""
    try:
        return shape_of(schema())
    except (
        Exception
    ) as error:  # pydantic or an author's type may raise anything; the chain itself may be right
        _log.debug("a chain's input has no JSON Schema: %s", type(error).__name__)
        return Shape()

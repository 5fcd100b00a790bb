"""The fields of OpenAI's requests: what is handed on, what makes no difference here, what must be refused.

What samples is handed to the chain as its params, and a chain may heed it; those that ship do not. What
would change an answer's meaning is refused, unless it says what is the case anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from gateway.formats.openai.common import ModelNotFound
from gateway.protocol.errors import Invalid
from gateway.streams.images import check_image
from gateway.streams.input_schemas import Inputs
from gateway.streams.messages import ROLES, call
from gateway.streams.params import RESPONSE_FORMAT
from gateway.streams.strict_json import check_text, shown

MOST_METADATA = 16  # as OpenAI's own
Check = Callable[[Any], bool]


def _is_number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _is_whole(low: int) -> Check:
    return lambda value: type(value) is int and low <= value < 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_stops(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and len(value) <= 4 and all(map(_is_text, value)))


def _are_biases(value: Any) -> bool:
    return _is_object(value) and all(map(_is_number(-100, 100), value.values()))


HANDED_ON: Mapping[str, tuple[Check, str]] = {
    "frequency_penalty": (_is_number(-2, 2), "must be a number from -2 to 2"),
    "logit_bias": (_are_biases, "must be an object of numbers from -100 to 100"),
    "max_completion_tokens": (_is_whole(1), "must be a whole number from 1"),
    "max_output_tokens": (_is_whole(1), "must be a whole number from 1"),
    "max_tokens": (_is_whole(1), "must be a whole number from 1"),
    "presence_penalty": (_is_number(-2, 2), "must be a number from -2 to 2"),
    "reasoning": (_is_object, "must be an object"),
    "reasoning_effort": (_is_text, "must be a string"),
    "seed": (_is_whole(-(2**53)), "must be a whole number"),
    "stop": (_are_stops, "must be a string, or a list of at most 4"),
    "temperature": (_is_number(0, 2), "must be a number from 0 to 2"),
    "top_p": (_is_number(0, 1), "must be a number from 0 to 1"),
    "user": (_is_text, "must be a string"),
    "verbosity": (_is_text, "must be a string"),
}
IGNORED = frozenset(
    (
        *("background_options", "include", "max_tool_calls", "parallel_tool_calls", "prediction"),
        *("prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "safety_identifier"),
        *("service_tier", "store", "truncation"),
    )
)
# What they may be beside null: as things are here without them.
NEUTRAL: Mapping[str, Check] = {
    "access_programs": lambda value: False,
    "audio": lambda value: False,
    "context_management": lambda value: value == [],
    "conversation": lambda value: False,
    "function_call": lambda value: value in ("none", "auto"),
    "functions": lambda value: value == [],
    "image": lambda value: False,
    "logprobs": lambda value: value is False,
    "modalities": lambda value: value == ["text"],
    "moderation": lambda value: False,
    "n": lambda value: type(value) is int and value == 1,
    "prompt": lambda value: False,
    "tool_choice": lambda value: value in ("none", "auto"),
    "tools": lambda value: value == [],
    "top_logprobs": lambda value: type(value) is int and value == 0,
    "web_search_options": lambda value: False,
}


FORMS = ("response_format", "text")  # where the two formats ask for the form of an answer
_OF_FORM = ("name", "schema", "strict")
MOST_FORM_NAME = 64  # as OpenAI's own
UNSTRUCTURED = (
    "asks for structured output, and this chain is not declared for it: its author can, by "
    "@chain(name, structured=True), where the chain heeds the param response_format"
)


def common(
    value: Any, own: frozenset[str], chains: Mapping[str, Any], inputs: Inputs
) -> tuple[str, dict[str, Any]]:
    """The chain, and its params; `own` are the fields that the format reads itself.

    Raises Invalid for what is no object, and for a field that is unknown, malformed or cannot be honoured;
    ModelNotFound.
    """
    if not isinstance(value, dict):
        raise Invalid("body", "must be an object")
    params = {}
    for name, given in value.items():
        if (
            name in own
            or name in ("model", "metadata", *FORMS)
            or name in IGNORED
            or (given is None and _known(name))
        ):
            continue
        if name in HANDED_ON:
            right, rule = HANDED_ON[name]
            if not right(given) or (isinstance(given, float) and not math.isfinite(given)):
                raise Invalid(name, rule)
            params[name] = given
        elif name not in NEUTRAL:
            raise Invalid(shown(name), "is not a field of this request")
        elif not NEUTRAL[name](given):
            raise Invalid(name, "asks for what this gateway's chains cannot do")
    model = value.get("model")
    if not isinstance(model, str):
        raise Invalid("model", "must be a string")
    if model not in chains:
        raise ModelNotFound(field="model")
    if (form := _form(value)) is not None:
        if not inputs.is_structured(model):
            raise Invalid(next(name for name in FORMS if value.get(name)), UNSTRUCTURED)
        params[RESPONSE_FORMAT] = form
    return model, params


def _form(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """The form that the answer is asked for in; None: a text. Raises Invalid."""
    given, at = value.get("response_format"), "response_format"
    if given is None and value.get("text") is not None:
        config, at = value["text"], "text"
        if not _is_object(config):
            raise Invalid(at, "must be an object")
        given = config.get("format")
    if given is None or (_is_object(given) and given.get("type") == "text"):
        return None
    if not _is_object(given) or given.get("type") != "json_schema":
        raise Invalid(at, "must be of the type text or json_schema: chains here know no other")
    told = given if at == "text" else given.get("json_schema")
    name, schema, strict = (told.get(one) if _is_object(told) else None for one in _OF_FORM)
    if not isinstance(name, str) or not 0 < len(name) <= MOST_FORM_NAME or not name.isascii():
        raise Invalid(at, f"must have a name of 1 to {MOST_FORM_NAME} ASCII characters")
    if not _is_object(schema) or not isinstance(strict, bool | None):
        raise Invalid(at, "must have a schema, which is an object; strict must be true or false")
    return {"name": name, "schema": schema, "strict": bool(strict)}


def flag(value: Mapping[str, Any], name: str) -> bool:
    """A field that is true or false, and false where it is not. Raises Invalid."""
    given = value.get(name)
    if given is not None and not isinstance(given, bool):
        raise Invalid(name, "must be true or false")
    return bool(given)


def metadata(value: Mapping[str, Any]) -> dict[str, str]:
    """The client's own. Raises Invalid."""
    given = value.get("metadata")
    if given is None:
        return {}
    if not _is_object(given) or len(given) > MOST_METADATA or not all(map(_is_text, given.values())):
        raise Invalid("metadata", f"must be an object of at most {MOST_METADATA} strings")
    return dict(given)


def message(at: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A message, as the gateway takes it. Raises Invalid, which names the field.

    Calls' ids and arguments, and the order of calls and answers, are checked with the whole conversation.
    """
    role = given.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise Invalid(f"{at}.role", f"must be one of {', '.join(ROLES)}")
    for name in ("function_call", "audio"):
        if given.get(name):
            raise Invalid(f"{at}.{name}", "asks for what this gateway's chains cannot do")
    said, calls = given.get("content"), given.get("tool_calls")
    if calls and role != "assistant":
        raise Invalid(f"{at}.tool_calls", "may be in a message of the assistant's alone")
    if said is None and role == "assistant":
        said = given.get("refusal")
    if said is None and calls:
        said = ""
    told = {"role": role, "content": content(f"{at}.content", said)}
    if role == "tool":
        return told | {"tool_call_id": given.get("tool_call_id")}
    return told | {"tool_calls": _calls(f"{at}.tool_calls", calls)} if calls else told


def _calls(at: str, given: Any) -> list[dict[str, Any]]:
    """An assistant's calls, without fields of a client's own."""
    if not isinstance(given, list):
        raise Invalid(at, "must be a list")
    calls = []
    for index, one in enumerate(given):
        function = one.get("function") if isinstance(one, dict) else None
        if not isinstance(function, dict) or one.get("type", "function") != "function":
            raise Invalid(at, f"must be calls of functions: [{index}] is none")
        calls.append(call(one.get("id"), function.get("name"), function.get("arguments")))
    return calls


def content(at: str, given: Any) -> Any:
    """A string, or a list of parts; one text alone is a string. Raises Invalid."""
    if isinstance(given, str):
        check_text(at, given)
        return given
    if not isinstance(given, list) or not given:
        raise Invalid(at, "must be a string, or a list of content parts")
    parts = [_part(f"{at}[{index}]", part) for index, part in enumerate(given)]
    return parts[0]["text"] if len(parts) == 1 and "text" in parts[0] else parts


def _part(at: str, part: Any) -> dict[str, Any]:
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise Invalid(at, "must be an object with a type")
    match part["type"]:
        case "text" | "input_text" | "output_text":
            return {"type": "text", "text": _string(f"{at}.text", part.get("text"))}
        case "refusal":
            return {"type": "text", "text": _string(f"{at}.refusal", part.get("refusal"))}
        case "image_url":
            image = part.get("image_url")
            if not isinstance(image, dict):
                raise Invalid(f"{at}.image_url", "must be an object")
            return _image(
                f"{at}.image_url.url", image.get("url"), f"{at}.image_url.detail", image.get("detail")
            )
        case "input_image":
            return _image(f"{at}.image_url", part.get("image_url"), f"{at}.detail", part.get("detail"))
    raise Invalid(f"{at}.type", "must be a text or an image by its URL")


def _image(at: str, url: Any, detail_at: str, detail: Any) -> dict[str, Any]:
    image = {"url": _string(at, url)}
    check_image(at, url)
    if detail is not None:
        image["detail"] = _string(detail_at, detail)
    return {"type": "image_url", "image_url": image}


def _string(at: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(at, "must be a string")
    check_text(at, value)
    return value


def _known(name: str) -> bool:
    return name in HANDED_ON or name in NEUTRAL or name in FORMS

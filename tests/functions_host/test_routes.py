"""The host's route templates: one example for each rule."""

from pathlib import Path

import pytest

from .bindings import BindingError, Function, HttpTrigger, read_function, resolve
from .routes import AmbiguousRouteError, Router, compile_template, read_prefix


def router(*routes: str, prefix: str = "", methods: tuple[str, ...] = ()) -> Router:
    functions = (
        Function(f"function {route}", route, HttpTrigger("req", route, methods, "function"))
        for route in routes
    )
    return Router(functions, prefix)


@pytest.mark.parametrize(
    ("route", "path", "params"),
    [
        ("/", "/", {}),
        ("stream/{id}", "/stream/a", {"id": "a"}),
        ("stream/{id}", "/STREAM/a/", {"id": "a"}),
        ("stream/{id}", "/stream/a%20%2f%C3%A4", {"id": "a %2Fä"}),
        ("stream/{id?}", "/stream", {}),
        ("stream/{id?}", "/stream/a", {"id": "a"}),
        ("/files/{*path}", "/files/a/b.js", {"path": "a/b.js"}),
        ("files/{*path}", "/files", {}),
        ("a.b", "/a.b", {}),
    ],
)
def test_a_template_matches_and_gives_its_parameters(route: str, path: str, params: dict[str, str]) -> None:
    match = router(route).match("GET", path)
    assert match is not None
    assert match.params == params


@pytest.mark.parametrize(
    ("route", "path"),
    [
        ("/", "/a"),
        ("stream/{id}", "/stream"),
        ("stream/{id}", "/stream/a/b"),
        ("stream/{id}", "/api/stream/a"),
        ("a.b", "/axb"),
    ],
)
def test_a_template_does_not_match(route: str, path: str) -> None:
    assert router(route).match("GET", path) is None


def test_the_prefix_stands_in_front() -> None:
    assert router("jobs", prefix="api").match("GET", "/api/jobs") is not None
    assert router("jobs", prefix="api").match("GET", "/jobs") is None


def test_a_method_that_no_function_takes_has_no_match() -> None:
    assert router("jobs", methods=("POST",)).match("GET", "/jobs") is None


def test_two_functions_for_one_request_are_an_error() -> None:
    with pytest.raises(AmbiguousRouteError):
        router("jobs/{id}", "jobs/new").match("GET", "/jobs/new")


@pytest.mark.parametrize("template", ["/{id:int}", "/{id=1}", "/{*path}/x", "/{id?}/x", "/a{id}"])
def test_what_this_host_does_not_know_is_refused(template: str) -> None:
    with pytest.raises(BindingError):
        compile_template(template)


def test_a_route_of_the_hosts_own_is_refused() -> None:
    binding = '{"type": "httpTrigger", "name": "req", "route": "Admin/x"}'
    with pytest.raises(BindingError):
        read_function("f", "1", [binding], {})


def test_a_function_without_a_trigger_is_refused() -> None:
    with pytest.raises(BindingError):
        read_function("f", "1", ['{"type": "http", "name": "$return"}'], {})


def test_settings_stand_between_percent_signs() -> None:
    assert resolve("a-%B%-%C%", {"B": "1", "C": "2"}) == "a-1-2"


def test_the_prefix_is_api_where_host_json_says_nothing(tmp_path: Path) -> None:
    assert read_prefix(tmp_path) == "api"
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    assert read_prefix(tmp_path) == "api"
    (tmp_path / "host.json").write_text('{"extensions": {"http": {"routePrefix": "v1"}}}')
    assert read_prefix(tmp_path) == "v1"

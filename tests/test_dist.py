"""The built packages.

Checked: their content, their dependencies, and that they work where nothing else is installed. `make
dist-test` installs them with each extra from the registry, which takes minutes.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import holdfast_gateway
from tests.support.installed import ROOT, Installed, build, closure, install

BASE = {"httpx", "orjson"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def base(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install only the wheel, httpx, orjson, and their dependencies."""
    names = {name.replace("-", "_") for name in closure(BASE)}
    assert not names & {"redis", "starlette", "langchain_core"}
    return install(built[0], tmp_path_factory.mktemp("base"), beside=names)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked(*folders: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def test_it_has_one_version_and_says_what_it_is(built: tuple[Path, Path]) -> None:
    told = metadata(built[0])
    version = holdfast_gateway.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version)
    assert (told["Name"], told["Version"]) == ("holdfast-gateway", version)
    assert [path.name for path in built] == [
        f"holdfast_gateway-{version}-py3-none-any.whl",
        f"holdfast_gateway-{version}.tar.gz",
    ]
    assert (told["Requires-Python"], told["License-Expression"]) == (">=3.11", "MIT")
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


def test_everything_that_the_product_reads_is_in_the_wheel(built: tuple[Path, Path]) -> None:
    inside = {name for name in contents(built[0]) if ".dist-info/" not in name}
    code = tracked("gateway", "holdfast_gateway", "workers")
    beside = {f"gateway/_files/{name}" for name in tracked("web", "docs", "infra")}
    assert inside == code | beside
    assert {"gateway/py.typed", "workers/py.typed", "holdfast_gateway/py.typed"} <= inside
    assert {
        "gateway/lua/append.lua",
        "gateway/_files/web/client.d.ts",
        "gateway/_files/infra/main.bicep",
    } <= inside


def test_the_sdist_makes_the_same_wheel_as_the_checkout(built: tuple[Path, Path], tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-P",
        "-m",
        "build",
        "--no-isolation",
        "--wheel",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (of_checkout,) = tmp_path.glob("*.whl")
    assert contents(of_checkout) == contents(built[0])  # `build` made the other wheel from the sdist.
    with tarfile.open(built[1]) as archive:
        assert "tests" not in {name.split("/")[1] for name in archive.getnames()}


def test_without_an_extra_it_asks_for_httpx_and_orjson_alone(built: tuple[Path, Path]) -> None:
    told = metadata(built[0])
    asked = [Requirement(line) for line in told.get_all("Requires-Dist", [])]
    assert {one.name for one in asked if one.marker is None} == BASE
    assert set(told.get_all("Provides-Extra", [])) == {"server", "worker", "azure", "embedded"}
    assert all(re.search("<", str(one.specifier)) or one.name in UNBOUNDED for one in asked)


# Their version numbers do not show which release breaks an interface.
UNBOUNDED = {"regex", "azure-monitor-opentelemetry-exporter"}


def test_each_range_has_the_version_that_the_suite_runs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = "".join((ROOT / name).read_text() for name in PINNED)
    pins = dict(re.findall(r"^([a-z][a-z0-9-]*)==([^;\s]+)(?!.*python_version !=)", text, re.MULTILINE))
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    for one in map(Requirement, asked):
        if one.name != "holdfast-gateway":
            assert one.specifier.contains(pins[one.name], prereleases=True), one
    core = re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements-core.txt").read_text(), re.MULTILINE)
    assert set(core) <= {one.name for one in map(Requirement, asked)}


PINNED = ("constraints.txt", "requirements-core.txt", "requirements-server.txt", "requirements.txt")


def test_the_base_install_has_the_clients_and_the_marks_of_chains(base: Installed) -> None:
    told = base.say(
        "import sys\n"
        "import holdfast_gateway as h\n"
        "assert not {'httpx', 'orjson'} & set(sys.modules)\n"
        "from holdfast_gateway import Each, chain\n"
        "chain('mine', stages=('a',))(lambda settings: {'a': Each(len, over=list)})\n"
        "from holdfast_gateway import (Event, Gateway, GatewayError, Refused, Result, Stage, Stream,\n"
        "    StreamCancelled, StreamFailed, SyncGateway, Unreachable)\n"
        "Gateway('http://127.0.0.1:1/api/ai').stream(user='x')\n"
        "assert issubclass(Unreachable, GatewayError)\n"
        "print(h.__file__, h.__version__)\n"
    )
    assert told.split() == [str(next(base.venv.glob("lib/*/site-packages/holdfast_gateway/__init__.py"))),
                            holdfast_gateway.__version__]  # fmt: skip
    assert base.run("holdfast", "--version") == f"holdfast {holdfast_gateway.__version__}\n"


@pytest.mark.parametrize(
    ("statement", "extra"),
    [
        ("import holdfast_gateway.testing", "worker"),
        ("import holdfast_gateway.checkpoints", "worker"),
        ("import holdfast_gateway.asgi", "server"),
        ("from holdfast_gateway import Streams", "server"),
        ("import holdfast_gateway.functions", "azure"),
    ],
)
def test_what_needs_an_extra_says_how_to_install_it(base: Installed, statement: str, extra: str) -> None:
    told = base.say(statement, code=1).splitlines()[-1]
    assert told.startswith("ImportError: ")
    assert told.endswith(f'pip install "holdfast-gateway[{extra}]"')


def test_a_command_that_needs_an_extra_says_so_without_a_stack(base: Installed) -> None:
    told = base.run("holdfast", "web", code=2)
    assert re.fullmatch(
        r"holdfast: this command needs the package \w+, which is not installed: "
        r'pip install "holdfast-gateway\[server,worker\]"\n',
        told,
    )


@pytest.mark.parametrize("name", ["workers", "gateway"])
@pytest.mark.parametrize("form", ["{}/__init__.py", "{}.py"])
def test_a_folder_of_the_users_that_hides_ours_is_named(
    base: Installed, tmp_path: Path, name: str, form: str
) -> None:
    theirs = tmp_path / form.format(name)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("")
    for command in ([str(base.python), "-c", "import holdfast_gateway"], ["holdfast", "web"]):
        told = base.run(*command, code=1 if "-c" in command else 2, cwd=tmp_path)
        assert f"{theirs} hides the package {name} of holdfast-gateway" in told
    assert "hides" not in base.run(str(base.python), "-c", "import holdfast_gateway")


def test_the_installed_page_and_documents_are_found(base: Installed) -> None:
    whole = base.with_everything()
    told = whole.say(
        "from gateway.web import pages\n"
        "from gateway.runtime.files import shipped\n"
        "from workers.chains.documents import OURS\n"
        "assert all((shipped('web') / name).is_file() for name in (pages.PAGE, *pages.PARTS))\n"
        "print(OURS, len(list(OURS.glob('*.md'))))\n"
    )
    folder, count = told.split()
    assert folder.startswith(str(base.venv))
    assert int(count) > 10


def test_a_new_project_passes_its_test(built: tuple[Path, Path], base: Installed) -> None:
    wheel = built[0]
    assert "Made trip/." in base.run("holdfast", "new", "trip", "--wheels", str(wheel.parent))
    project = base.folder / "trip"
    assert (project / "wheels" / wheel.name).read_bytes() == wheel.read_bytes()
    assert f"=={holdfast_gateway.__version__}\n" in (project / "requirements.txt").read_text()
    assert (project / "infra/main.bicep").is_file()
    whole = base.with_everything()
    command = [str(base.python), "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    assert "1 passed" in whole.run(*command, cwd=project)

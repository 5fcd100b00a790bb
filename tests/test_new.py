"""`holdfast new`: which files it makes, and that they agree with the product's own files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from pathspec import GitIgnoreSpec

from holdfast_gateway import __version__
from holdfast_gateway.new import made, make
from tests.infra.test_settings import SECRETS

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    *(".env", ".funcignore", ".gitignore", "README.md", "azure.yaml", "chains.py", "function_app.py"),
    *("host.json", "local.settings.json", "pytest.ini", "requirements-dev.txt", "requirements.txt"),
    "tests/test_chains.py",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make("my-trip", "1.2.3", tmp_path)


def run_its_tests(project: Path) -> subprocess.CompletedProcess[str]:
    """Run a project's tests in its folder, with pytest and without the settings of this repository."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(project)}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def ignored(file: Path, files: set[str]) -> set[str]:
    return set(GitIgnoreSpec.from_lines(file.read_text().splitlines()).match_files(files))


def test_it_makes_these_files_and_leaves_no_hole(project: Path) -> None:
    infra = {f"infra/{name}" for name in names(ROOT / "infra")}
    assert names(project) == FILES | infra
    for name in FILES:
        text = (project / name).read_text()
        assert "{{" not in text
        assert text.endswith("\n")
    assert '@chain("my-trip")' in (project / "chains.py").read_text()
    assert "name: my-trip\n" in (project / "azure.yaml").read_text()
    assert len((project / "README.md").read_text().splitlines()) == 10


def test_what_it_has_of_the_product_is_the_products(project: Path) -> None:
    assert json.loads((project / "host.json").read_text()) == json.loads((ROOT / "host.json").read_text())
    for name in names(ROOT / "infra"):
        assert (project / "infra" / name).read_bytes() == (ROOT / "infra" / name).read_bytes()
    own, ours = (
        path.read_text().partition("name: ")[2] for path in (project / "azure.yaml", ROOT / "azure.yaml")
    )
    assert own.partition("\n")[2] == ours.partition("\n")[2]
    sample = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]
    settings = json.loads((project / "local.settings.json").read_text())["Values"]
    assert settings.items() <= sample.items()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_it_asks_for_this_version_and_for_extras_that_there_are(project: Path, name: str) -> None:
    lines = (project / name).read_text().splitlines()
    assert "--find-links wheels" in lines
    (asked,) = [Requirement(line) for line in lines if line.startswith("holdfast-gateway")]
    assert str(asked.specifier) == "==1.2.3"
    assert asked.extras == ({"azure"} if name == "requirements.txt" else {"server", "worker", "embedded"})


def test_no_secret_is_committed_or_deployed_and_what_runs_is_deployed(project: Path) -> None:
    assert set(SECRETS) - ignored(project / ".funcignore", set(SECRETS)) == set()
    assert ignored(project / ".gitignore", names(project)) == {".env", "local.settings.json"}
    deployed = names(project) | {"wheels/holdfast_gateway-1.2.3-py3-none-any.whl"}
    left = ignored(project / ".funcignore", deployed)
    assert deployed - left == {
        *("chains.py", "function_app.py", "host.json", "requirements.txt"),
        "wheels/holdfast_gateway-1.2.3-py3-none-any.whl",
    }


@pytest.mark.parametrize("name", ["", "Trip", "1trip", "-trip", "a" * 41, "a_b", "../x", "ä", "a\n"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="NAME begins with a letter"):
        make(name, "1.2.3", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert made(["trip"]) == 0
    assert "holdfast run" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert f"holdfast-gateway[azure]=={__version__}\n" in (tmp_path / "trip/requirements.txt").read_text()
    assert made(["trip"]) == 2
    assert "already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_with_the_folder_of_the_wheels_its_steps_need_nothing_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wheel = f"holdfast_gateway-{__version__}-py3-none-any.whl"
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / wheel).write_bytes(b"the wheel")
    (tmp_path / "dist" / "holdfast_gateway-0.0.9-py3-none-any.whl").write_bytes(b"an older one")
    assert made(["trip", "--wheels", "dist"]) == 0
    assert names(tmp_path / "trip" / "wheels") == {wheel}
    assert (tmp_path / "trip" / "wheels" / wheel).read_bytes() == b"the wheel"
    assert capsys.readouterr().out == (
        "Made trip/. Now, in this environment or in a new one:\n"
        "\n"
        "  cd trip\n"
        "  pip install -r requirements-dev.txt\n"
        "  pytest\n"
        "  holdfast run\n"
    )


def test_without_the_folder_of_the_wheels_the_step_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert made(["trip"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = f"  mkdir wheels && cp /path/to/holdfast_gateway-{__version__}-*.whl wheels/"
    assert lines[2:5] == [
        "  cd trip",
        f"{first}    # until it is published",
        "  pip install -r requirements-dev.txt",
    ]


def test_a_folder_without_the_wheel_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert made(["trip", "--wheels", "dist"]) == 2
    assert capsys.readouterr().err == (
        f"holdfast new: there is no holdfast_gateway-{__version__}-*.whl in dist: `make dist` in a checkout "
        "of Holdfast makes it there\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_its_test_fails_when_its_chain_says_something_else(project: Path) -> None:
    """The test that a newcomer gets must be able to fail."""
    chains = (project / "chains.py").read_text().replace("prompt | model(settings)", "lambda given: 'no'")
    (project / "chains.py").write_text(chains)
    ran = run_its_tests(project)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "assert 'no' == 'It holds kelp to rock.'" in ran.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_documented_test_passes_in_it_as_it_is_printed(project: Path) -> None:
    part = (ROOT / "docs/chains.md").read_text().partition("## Test your chain\n")[2].partition("\n## ")[0]
    chain, test = re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    (project / "weather.py").write_text(chain)
    (project / "tests/test_weather.py").write_text(test)
    ran = run_its_tests(project)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout

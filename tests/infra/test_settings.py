"""Template, host.json, function_app.py, settings and the sample for Core Tools say the same."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

from gateway.queue.azure_queue import HELD
from gateway.settings import Settings
from gateway.settings.rules import SHORTEST_SECRET
from tests.infra.syntax import literal, parse, parts, text
from tests.infra.types import resources

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = (ROOT / "infra" / "modules" / "functions.bicep").read_text()
STORAGE = (ROOT / "infra" / "modules" / "storage.bicep").read_text()
REDIS = (ROOT / "infra" / "modules" / "redis.bicep").read_text()
TOP = (ROOT / "infra" / "main.bicep").read_text()
APP = (ROOT / "holdfast_gateway" / "registered.py").read_text()
HOST = json.loads((ROOT / "host.json").read_text())
SAMPLE = json.loads((ROOT / "local.settings.sample.json").read_text())["Values"]

PLATFORM = {
    "AzureWebJobsDisableHomepage",
    "AzureWebJobsStorage__blobServiceUri",
    "AzureWebJobsStorage__credential",
    "FUNCTIONS_WORKER_RUNTIME",  # Core Tools only
    "PYTHON_ENABLE_INIT_INDEXING",  # Core Tools with Python below 3.13
}
# Flex Consumption refuses or ignores these: what they said is in functionAppConfig.
NOT_ON_FLEX = {
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_RUNTIME",
    "PYTHON_ENABLE_INIT_INDEXING",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_RUN_FROM_PACKAGE",
}
# what `azd env set` chooses: the name of the variable and of the template's parameter
PARAMETERS = json.loads((ROOT / "infra" / "main.parameters.json").read_text())["parameters"]
CHOSEN = {
    match[1]: name for name, given in PARAMETERS.items() if (match := re.match(r"\$\{(\w+)=", given["value"]))
}
GENERATED = 48  # characters of the keys of stream tokens, which azd makes
SETTINGS = dict(re.findall(r"\{ name: '(\w+)', value: (.+?) \}", FUNCTIONS))
PRODUCT = {item.metadata["env"]: item for item in fields(Settings)}


OPTIONAL = set(re.findall(r"^param (\w+) string = ''", TOP, re.MULTILINE)) | {
    "directStart",
    "openAiApiVersion",
}


def default(source: str, parameter: str) -> str:
    """The default of a template's parameter."""
    for node in parse(source).named_children:
        if node.type == "parameter_declaration" and text(parts(node)[0]) == parameter:
            value = parts(node)[2]
            written = literal(value)
            return text(value) if written is None else written
    raise LookupError(parameter)


@pytest.mark.parametrize("name", sorted(SETTINGS | SAMPLE))
def test_a_setting_means_something(name: str) -> None:
    assert name in PRODUCT or name in PLATFORM


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_setting_may_stand_on_flex_consumption(name: str) -> None:
    assert name not in NOT_ON_FLEX


def test_no_platform_name_is_one_of_the_product() -> None:
    assert not PLATFORM & PRODUCT.keys()


def test_the_product_accepts_the_templates_settings() -> None:
    known = {
        "clientId": "00000000-0000-0000-0000-000000000001",
        "queueName": default(STORAGE, "queueName"),
        "redisUrl": "rediss://redis.invalid:10000",
        "telemetryConnectionString": "InstrumentationKey=1;IngestionEndpoint=https://in.invalid/",
        "'ClientId=${clientId};Authorization=AAD'": "ClientId=1;Authorization=AAD",
        "tokenKeys": "k" * GENERATED,
        **{name: default(TOP, name) for name in CHOSEN.values() if name in OPTIONAL},
    }
    given = {name: known.get(value, value.strip("'")) for name, value in SETTINGS.items() if name in PRODUCT}
    settings = Settings.from_env(given)
    assert (settings.queue, settings.redis_url) == ("azure-storage", known["redisUrl"])
    assert settings.token_keys
    presumed = Settings(queue="azure-storage", storage="x")
    for name in set(CHOSEN) & PRODUCT.keys() - {"GATEWAY_MODEL", "OPENAI_API_VERSION"}:
        assert getattr(settings, PRODUCT[name].name) == getattr(presumed, PRODUCT[name].name), name


def test_the_product_accepts_the_samples_settings() -> None:
    settings = Settings.from_env(SAMPLE)
    assert settings.queue == "azure-storage"
    assert SAMPLE["AzureWebJobsStorage"] == "UseDevelopmentStorage=true"


def test_no_key_of_a_service_is_in_the_template() -> None:
    together = "".join(path.read_text() for path in (ROOT / "infra").rglob("*.bicep"))
    assert not re.search(r"listKeys|AccountKey|API_KEY|sharedKey", together)
    assert set(re.findall(r"@secure\(\)[^=]*?param (\w+)", together)) == {"tokenKeys", "webhookKeys"}
    for source in (TOP, FUNCTIONS):
        assert re.search(r"@secure\(\)\nparam webhookKeys string", source)
    assert "allowSharedKeyAccess: false" in STORAGE
    assert "accessKeysAuthentication: 'Disabled'" in REDIS


def test_the_queues_are_those_of_the_product() -> None:
    queue = default(STORAGE, "queueName")
    assert queue == Settings().queue_name == SAMPLE["GATEWAY_QUEUE_NAME"]
    assert f"name: '${{queueName}}{HELD}'" in STORAGE
    assert "queue_name=settings.queue_name," in APP
    assert 'queue_name=f"{settings.queue_name}-poison"' in APP
    assert "name: '${queueName}-poison'" in STORAGE
    assert "queues" in HOST["extensions"]


def test_the_storage_connection_is_the_one_of_the_triggers() -> None:
    assert re.findall(r'^STORAGE = "(\w+)"', APP, re.MULTILINE) == ["AzureWebJobsStorage"]
    assert set(re.findall(r"connection=(\w+)", APP)) == {"STORAGE"}
    assert SETTINGS["AzureWebJobsStorage__credential"] == "'managedidentity'"
    assert SETTINGS["AzureWebJobsStorage__queueServiceUri"] == "queueEndpoint"


def test_always_ready_names_the_function_that_runs_jobs() -> None:
    (name,) = re.findall(r"'function:(\w+)'", FUNCTIONS)
    assert f"async def {name}(" in APP


def test_python_is_the_version_that_the_product_is_made_for() -> None:
    assert re.search(r"name: 'python'\s+version: '3\.13'", FUNCTIONS)


def test_a_run_has_half_an_hour_and_a_rolling_update_an_hour() -> None:
    hours, minutes, _ = map(int, HOST["functionTimeout"].split(":"))
    assert 30 <= hours * 60 + minutes < 60


def test_the_default_size_of_redis_is_one_that_exists() -> None:
    cluster = resources()["Microsoft.Cache/redisEnterprise@2025-07-01"]
    sizes = cluster.properties["sku"][0].properties["name"][0].values
    assert default(TOP, "redisSku") in sizes


def test_azd_env_set_reaches_every_parameter_and_says_the_same_defaults() -> None:
    parameters = {
        text(parts(node)[0]) for node in parse(TOP).named_children if node.type == "parameter_declaration"
    }
    assert parameters - set(CHOSEN.values()) == {"environmentName", "location", "tokenKeys"}
    for variable, name in CHOSEN.items():
        assert PARAMETERS[name]["value"] == f"${{{variable}={default(TOP, name)}}}"


@pytest.mark.parametrize("name", sorted(CHOSEN.keys() & SETTINGS.keys() - {"GATEWAY_MODEL"}))
def test_a_variable_that_is_chosen_reaches_the_setting_of_its_name(name: str) -> None:
    """The module takes each under the template's name, so the value goes from `azd env set` to the app."""
    assert re.search(rf"\b{CHOSEN[name]}\b", SETTINGS[name].replace("openAiApiVersion", CHOSEN[name]))
    assert f"    {CHOSEN[name]}: {CHOSEN[name]}\n" in TOP


def test_a_users_own_chain_gets_to_azure() -> None:
    """By the documented steps: its module beside function_app.py, and GATEWAY_CHAINS."""
    assert left_behind(["mine.py", "mine/chain.py", "mine/data.json"]) == set()
    assert {"GATEWAY_CHAINS", "GATEWAY_AUTH", "GATEWAY_MAX_OWNER_STREAMS"} <= CHOSEN.keys() & SETTINGS.keys()


def test_azd_makes_the_keys_of_stream_tokens_once_and_long_enough() -> None:
    made = re.search(r"type: 'generate'\s+config: \{\s+length: (\d+)\s+noSpecial: true\s+\}", TOP)
    assert made
    assert int(made[1]) == GENERATED >= SHORTEST_SECRET
    assert re.search(r"@secure\(\)\s+@minLength\(32\)[^@]*@metadata\(\{[^@]*param tokenKeys string\n", TOP)
    assert SETTINGS["GATEWAY_TOKEN_KEYS"] == "tokenKeys"


def test_webhooks_plans_and_budgets_get_to_azure() -> None:
    """What is chosen reaches the app, and the file of plans goes along with the code."""
    given = {
        "GATEWAY_WEBHOOK_KEYS": "w" * SHORTEST_SECRET,
        "GATEWAY_WEBHOOK_HOSTS": "hooks.example.org",
        "GATEWAY_WEBHOOK_RETRY_SECONDS": "1 60",
        "GATEWAY_PLANS_FILE": "plans.json",
        "GATEWAY_MAX_OWNER_TOKENS_PER_DAY": "1000000",
        "GATEWAY_MAX_OWNER_TOKENS_PER_MINUTE": "20000",
        "GATEWAY_LIST_METADATA": "about",
    }
    assert given.keys() <= CHOSEN.keys() & SETTINGS.keys()
    settings = Settings.from_env({"GATEWAY_QUEUE": "azure-storage", "AzureWebJobsStorage": "x"} | given)
    assert (settings.webhook_pauses, settings.plans_file) == ((1, 60), "plans.json")
    assert left_behind(["plans.json"]) == set()


def test_the_region_is_one_of_a_list() -> None:
    allowed = re.search(
        r"@allowed\(\[\n((?:  '\w+'\n)+)\]\)\n@metadata\(\{\n  azd: \{\n    type: 'location'", TOP
    )
    assert allowed
    regions = re.findall(r"'(\w+)'", allowed[1])
    assert len(regions) > 25
    assert {"westeurope", "eastus", "swedencentral"} <= set(regions)


def test_the_platforms_preflights_and_the_apps_are_of_one_list() -> None:
    assert SETTINGS["GATEWAY_CORS_ORIGINS"] == "corsOrigins"
    assert re.search(r"allowedOrigins: .*split\(corsOrigins, ' '\)", FUNCTIONS)


def test_azd_deploys_the_app_that_the_template_tags() -> None:
    project = (ROOT / "azure.yaml").read_text()
    (service,) = re.findall(r"^  (\w+):.*\n    project: \.", project, re.MULTILINE)
    assert f"'azd-service-name': '{service}'" in FUNCTIONS
    assert re.search(r"^    host: function$", project, re.MULTILINE)
    assert re.search(r"^  path: infra\n  module: main$", project, re.MULTILINE)


def left_behind(files: list[str]) -> set[str]:
    """Those of these paths that .funcignore names: its rules are those of .gitignore (gitignore(5))."""
    rules = GitIgnoreSpec.from_lines((ROOT / ".funcignore").read_text().splitlines())
    return set(rules.match_files(files))


def test_fault_87_what_the_app_needs_is_deployed() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = listed.stdout.splitlines()
    needed = ("function_app.py", "host.json", "requirements.txt", "requirements-core.txt", "constraints.txt")
    folders = ("gateway/", "holdfast_gateway/", "workers/", "web/", "docs/")  # docs: what `rag` searches
    here = {path for path in tracked if path in needed or path.startswith(folders)}
    assert len(here) > 100
    assert set(tracked) - left_behind(tracked) == here


SECRETS = [
    *(".env", ".env.local", "prod.env", ".envrc", "local.settings.json", "local.settings.prod.json"),
    *("server.pem", "server.key", "app.pfx", "app.p12", "store.jks", "site.publishsettings"),
    *("id_rsa", "id_ed25519.pub", ".netrc", ".npmrc", ".pypirc", "keys", "keys.txt", "holdfast.keys"),
    *("secrets.json", "dump.rdb", "appendonly.aof", "gateway.store.log"),
]


@pytest.mark.parametrize("folder", ["", "gateway/", "docs/old/", "web/vendor/"])
def test_fault_87_no_secret_is_deployed_wherever_it_lies(folder: str) -> None:
    there = [folder + name for name in SECRETS]
    assert set(there) - left_behind(there) == set()


def test_fault_87_what_it_does_not_need_stays_behind() -> None:
    left = ["tests/x.py", "infra/main.bicep", ".venv/bin/python", "azure.yaml", ".git/config", ".gitignore"]
    left += [
        "bench/x.py",
        "build/x",
        "tests/node/node_modules/x.js",
        "gateway/__pycache__/x.pyc",
        ".azure/x/.env",
    ]
    assert set(left) - left_behind(left) == set()


def test_fault_84_no_password_of_the_apps_own_deploys_code() -> None:
    policies = re.findall(
        r"^resource \w+ 'Microsoft\.Web/sites/basicPublishingCredentialsPolicies@[\d-]+' = \{\n"
        r"  parent: app\n  name: '(\w+)'\n  properties: \{\n    allow: (\w+)\n",
        FUNCTIONS,
        re.MULTILINE,
    )
    assert dict(policies) == {"scm": "false", "ftp": "false"}


def test_fault_85_an_action_is_pinned_by_its_commit() -> None:
    """A tag can be moved to other code; a commit cannot. The comment says which release it is."""
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        used = re.findall(r"uses: *(.+)$", path.read_text(), re.MULTILINE)
        assert used
        for one in used:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one), one

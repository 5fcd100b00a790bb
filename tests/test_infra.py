"""The Bicep template has no fault that can be found without a cloud, and a wrong template is detected."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.infra.check import MAIN, Check, main
from tests.infra.findings import Report

FUNCTIONS, REDIS, STORAGE = "modules/functions.bicep", "modules/redis.bicep", "modules/storage.bicep"
OPENAI, MONITORING = "modules/openai.bicep", "modules/monitoring.bicep"
TOP, PARAMETERS = "main.bicep", "main.parameters.json"

# Each item: the file, a text in it, the text that replaces it, and what the check must report.
MUTATIONS = [
    # a property that does not exist, at any depth
    (FUNCTIONS, "siteUpdateStrategy: {", "siteUpdatePolicy: {", "siteUpdatePolicy does not exist"),
    (
        FUNCTIONS,
        "perInstanceConcurrency:",
        "perInstanceConcurency:",
        "http.perInstanceConcurency does not exist",
    ),
    (FUNCTIONS, "httpsOnly: true", "httpOnly: true", "properties.httpOnly does not exist"),
    (FUNCTIONS, "{ name: 'GATEWAY_QUEUE', value:", "{ name: 'GATEWAY_QUEUE', val:", "].val does not exist"),
    (FUNCTIONS, "instanceCount: alwaysReadyHttp", "instances: alwaysReadyHttp", "instances does not exist"),
    (REDIS, "aofEnabled: true", "appendOnly: true", "persistence.appendOnly does not exist"),
    (STORAGE, "allowSharedKeyAccess:", "allowSharedKeys:", "allowSharedKeys does not exist"),
    (OPENAI, "disableLocalAuth: true", "localAuth: false", "localAuth does not exist"),
    (
        MONITORING,
        "DisableLocalAuth: true",
        "disableLocalAuth: true",
        "properties.disableLocalAuth does not exist",
    ),
    # a value of a wrong type
    (FUNCTIONS, "httpsOnly: true", "httpsOnly: 'true'", "httpsOnly is string, not bool"),
    (FUNCTIONS, "userAssignedIdentities: {", "userAssignedIdentities: [{", "syntax error"),
    (
        FUNCTIONS,
        "perInstanceConcurrency: httpConcurrency",
        "perInstanceConcurrency: location",
        "is string, not int",
    ),
    (
        FUNCTIONS,
        "{ name: 'GATEWAY_QUEUE', value: 'azure-storage' }",
        "'GATEWAY_QUEUE'",
        "is string, not object",
    ),
    (REDIS, "var port = 10000", "var port = '10000'", "port is string, not int"),
    (REDIS, "persistence: {", "modules: {", "modules is object, not array"),
    (STORAGE, "parent: blobs", "parent: queues", "queues is no parent of"),
    (STORAGE, "parent: blobs\n", "", "needs a parent"),
    (STORAGE, "scope: account", "scope: location", "location is no resource"),
    (MONITORING, "retentionInDays: 30", "retentionInDays: '30'", "retentionInDays is string, not int"),
    # a value that an enumeration does not have
    (FUNCTIONS, "  'RollingUpdate'\n", "  'Rolling'\n", "siteUpdateStrategy.type: Rolling is not one of"),
    (TOP, "= 'RollingUpdate'", "= 'Rolling'", "siteUpdateStrategy: Rolling is not one of"),
    (FUNCTIONS, "type: 'blobContainer'", "type: 'blob'", "storage.type: blob is not one of"),
    (FUNCTIONS, "type: 'UserAssigned'", "type: 'User'", "identity.type: User is not one of"),
    (REDIS, "evictionPolicy: 'NoEviction'", "evictionPolicy: 'Never'", "evictionPolicy: Never is not one of"),
    (REDIS, "aofFrequency: '1s'", "aofFrequency: '2s'", "aofFrequency: 2s is not one of"),
    (REDIS, "string = 'Enabled'", "string = 'On'", "highAvailability: On is not one of"),
    (REDIS, "  'OSSCluster'\n", "  'OSS'\n", "OSS is not one of"),
    (STORAGE, "'TLS1_2'", "'1.2'", "minimumTlsVersion: 1.2 is not one of"),
    (TOP, "= 'GlobalStandard'", "= 'Global'", "modelSku: Global is not one of"),
    (TOP, "= 2048", "= 1024", "instanceMemoryMB: 1024 is not one of"),
    # a value outside of its bounds
    (TOP, "maximumInstanceCount int = 100", "maximumInstanceCount int = 5000", "5000, not within 1 and 1000"),
    (STORAGE, "'${queueName}-poison'", "'p'", "length of poison.name is 1"),
    (STORAGE, "name: containerName", "name: 'd'", "length of deployments.name is 1"),
    # a required property is missing
    (REDIS, "    user: {\n      objectId: principalId\n    }\n", "", "properties.user is missing"),
    (REDIS, "    publicNetworkAccess: 'Enabled'\n", "", "publicNetworkAccess is missing"),
    (REDIS, "  sku: {\n    name: skuName\n  }\n", "", "cluster.sku is missing"),
    (STORAGE, "  kind: 'StorageV2'\n", "", "account.kind is missing"),
    (MONITORING, "    Application_Type: 'web'\n", "", "Application_Type is missing"),
    (MONITORING, "    principalId: principalId\n", "", "properties.principalId is missing"),
    (FUNCTIONS, "name: 'plan-${token}'\n", "\n", "plan.name is missing"),
    # a read-only property, which only the service sets
    (FUNCTIONS, "httpsOnly: true", "state: 'Running'", "properties.state is read-only"),
    (REDIS, "minimumTlsVersion: '1.2'", "hostName: 'x'", "properties.hostName is read-only"),
    (OPENAI, "disableLocalAuth: true", "endpoint: 'x'", "properties.endpoint is read-only"),
    (STORAGE, "accessTier: 'Hot'", "creationTime: 'now'", "creationTime is read-only"),
    # a property that is set twice
    (STORAGE, "accessTier: 'Hot'", "accessTier: 'Hot'\n    accessTier: 'Cool'", "accessTier is set twice"),
    # a resource type or version that does not exist
    (
        FUNCTIONS,
        "Microsoft.Web/sites@2025-05-01",
        "Microsoft.Web/sites@2025-05-02",
        "no such type and version",
    ),
    (
        FUNCTIONS,
        "Microsoft.Web/sites@2025-05-01",
        "Microsoft.Web/site@2025-05-01",
        "no such type and version",
    ),
    (REDIS, "Microsoft.Cache/redisEnterprise@2025-07-01", "Microsoft.Cache/redis@2025-07-01", "no such type"),
    # wrong syntax
    (FUNCTIONS, "httpsOnly: true", "httpsOnly true", "syntax error"),
    (REDIS, "name: 'default'", "name: 'default", "syntax error"),
    (STORAGE, "    publicAccess: 'None'\n  }\n", "    publicAccess: 'None'\n", "syntax error"),
    (STORAGE, "accessTier: 'Hot'\n", "accessTier: 'Hot' ", "a new line or a comma is missing"),
    (TOP, "param location string", "params location string", "syntax error"),
    (TOP, "'rg-${environmentName}'", "'rg\\-${environmentName}'", "unknown escape"),
    # unknown names, and a wrong number of arguments
    (FUNCTIONS, "serverFarmId: plan.id", "serverFarmId: plans.id", "plans is declared nowhere"),
    (FUNCTIONS, "value: redisUrl }", "value: redisURL }", "redisURL is declared nowhere"),
    (STORAGE, "primaryEndpoints.queue", "primaryEndpoints.queues", "there is no queues"),
    (STORAGE, "in items(roles)", "in list(roles)", "no function list is known"),
    (STORAGE, "guid(account.id, principalId, role.value)", "guid()", "guid does not take 0 arguments"),
    (STORAGE, "role.value)\n  scope", "rolle.value)\n  scope", "rolle is declared nowhere"),
    (STORAGE, "role.value)\n  scope", "role.id)\n  scope", "there is no id"),
    (
        MONITORING,
        "insights.properties.ConnectionString",
        "insights.properties.connectionString",
        "there is no conn",
    ),
    (REDIS, "@allowed([\n  'Enabled'", "@alowed([\n  'Enabled'", "no decorator alowed is known"),
    # wrong use of modules
    (TOP, "    skuName: redisSku\n", "    size: redisSku\n", "params.size does not exist"),
    (TOP, "    skuName: redisSku\n", "", "params.skuName is missing"),
    (TOP, "capacity: modelCapacity", "capacity: modelName", "params.capacity is string, not int"),
    (TOP, "tags: tags\n    principalId", "tags: token\n    principalId", "params.tags is string, not object"),
    (TOP, "storage.outputs.queueName", "storage.outputs.queue", "there is no queue"),
    (TOP, "redis.outputs.url", "redis.output.url", "there is no output"),
    (TOP, "'modules/redis.bicep'", "'modules/cache.bicep'", "there is no file modules/cache.bicep"),
    (TOP, "  scope: group\n", "  scope: token\n", "token is no resource"),
    (REDIS, "output hostName string", "output host string", "there is no hostName"),
    # a resource name that is not known at the start of the deployment
    (STORAGE, "'${queueName}-poison'", "account.properties.primaryLocation", "must be known at the start"),
    # a declaration that is not used, and a use of a name that was renamed
    (TOP, "redisClusteringPolicy string", "redisPolicy string", "redisClusteringPolicy is declared nowhere"),
    (STORAGE, "name: containerName", "name: 'deployments'", "containerName is used nowhere"),
    # a parameter file that does not fit the template
    (PARAMETERS, '"redisSku"', '"redisSize"', "the template has no parameter redisSize"),
    (TOP, "    type: 'generate'\n", "    type: 'location'\n", "tokenKeys is missing"),
    (PARAMETERS, '"location"', '"modelSku"', "location is missing"),
]


@pytest.fixture(scope="module")
def report() -> Report:
    return Check(MAIN).run()


def test_the_template_has_no_fault(report: Report) -> None:
    assert not report.faults


def test_only_the_size_of_redis_is_left_to_the_service(report: Report) -> None:
    assert [item.text for item in report.passed_over] == ["cluster.sku.name: which of the allowed values"]


def test_every_file_of_the_folder_is_reached(report: Report) -> None:
    files = (path for path in MAIN.parent.rglob("*") if "grafana" not in path.parts)
    there = {path.resolve() for path in files if path.suffix in (".bicep", ".json")}
    assert set(report.files) == there


def test_the_check_looked_at_what_the_template_says(report: Report) -> None:
    written = sum(file.read_text().count("\nresource ") for file in report.files)
    assert report.counts["resources"] == sum(report.types.values()) == written
    assert report.counts["properties"] > 200


@pytest.fixture
def infra(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MAIN.parent, tmp_path / "infra"))


@pytest.mark.parametrize(("file", "old", "new", "why"), MUTATIONS, ids=[f"{m[0]}:{m[3]}" for m in MUTATIONS])
def test_an_error_in_the_template_is_caught(infra: Path, file: str, old: str, new: str, why: str) -> None:
    path = infra / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    assert why in "\n".join(map(str, Check(infra / "main.bicep").run().faults))


def test_the_command_says_what_it_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(MAIN) == 0
    said = capsys.readouterr().out
    assert "modules/redis.bicep" in said
    assert "Microsoft.Web/sites@2025-05-01 (1)" in said
    assert "not decided, as it depends on values given later: 1" in said
    assert "faults: 0" in said


def test_the_command_fails_with_the_template(infra: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = infra / REDIS
    path.write_text(path.read_text().replace("NoEviction'", "Sometimes'"))
    assert main(infra / "main.bicep") == 1
    assert ": database.properties.evictionPolicy: Sometimes is not one of" in capsys.readouterr().out

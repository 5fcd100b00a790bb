"""Regenerate tests/infra/schemas: run `python -m tests.infra.export` after a template uses a new type.

The templates determine which types are needed. The sources of the types:

- Bicep's own types, from the package msmcp-azure. It omits some providers and the newest versions.
- For these, the models of the provider's azure-mgmt package, whose API version must be the template's.

All of it is Microsoft's, under the MIT licence: tests/infra/schemas/LICENSE. Needs pip and the package index,
and about a minute; no test runs it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from tests.infra.export import bicep_types, embedded, sdk_models
from tests.infra.export.table import REQUIRED, Table

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = ROOT / "tests" / "infra" / "schemas"
BICEP_TYPES = "msmcp-azure==3.0.0"
SDKS = {"Microsoft.Web": "azure-mgmt-web==11.0.1", "Microsoft.Cache": "azure-mgmt-redisenterprise==3.1.0"}
MODELS = {
    "Microsoft.Web/serverfarms": "AppServicePlan",
    "Microsoft.Web/sites": "Site",
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": "CsmPublishingCredentialsPoliciesEntity",
    "Microsoft.Cache/redisEnterprise": "Cluster",
    "Microsoft.Cache/redisEnterprise/databases": "Database",
    "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments": "AccessPolicyAssignment",
}
# Required properties that the older packages omit and that the published reference of 2025-07-01 lists.
MUST_BE_SET = {
    "Cluster.properties": ("publicNetworkAccess",),
    "AccessPolicyAssignment.properties": ("accessPolicyName", "user"),
}


def wanted() -> dict[str, list[str]]:
    """Return the resource types of all templates, by provider."""
    found = defaultdict(set)
    for path in sorted((ROOT / "infra").rglob("*.bicep")):
        for name in re.findall(r"'(Microsoft\.[\w./]+@[\w-]+)'", path.read_text()):
            found[name.partition("/")[0]].add(name)
    return {provider: sorted(names) for provider, names in sorted(found.items())}


def download(package: str, folder: Path) -> ZipFile:
    """Download the package's wheel."""
    into = folder / package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), package]
    subprocess.run(command, check=True)
    (wheel,) = into.glob("*.whl")
    return ZipFile(wheel)


def from_sdk(package: str, names: list[str], wheel: ZipFile) -> Table:
    """Return the types that the models of an azure-mgmt package describe, if they have the requested
    version."""
    table = Table()
    converter = sdk_models.Converter(sdk_models.Package.read(wheel), table)
    (configuration,) = [
        name for name in wheel.namelist() if re.search(r"/mgmt/\w+/_configuration\.py$", name)
    ]
    for name in names:
        resource, version = name.split("@")
        if f'"{version}"' not in wheel.read(configuration).decode():
            raise SystemExit(f"{package} is not of version {version}")
        table.resources[name] = converter.resource(MODELS[resource])
    for entry in table.types:
        for name in MUST_BE_SET.get(entry.get("name", ""), ()):
            entry["properties"][name][1] |= REQUIRED
    return table


def from_bicep(names: list[str], files: list[embedded.Raw]) -> Table:
    """Return the types that Bicep itself would check against."""
    table = Table()
    for raw in files:
        here = bicep_types.resources(raw)
        converter = bicep_types.Converter(raw, table)
        for name in sorted(here.keys() & set(names)):
            table.resources[name] = converter.take(here[name])
    if missing := set(names) - table.resources.keys():
        raise SystemExit(f"{BICEP_TYPES} does not know {', '.join(sorted(missing))}")
    return table


def main() -> None:
    """Write one file for each provider."""
    with TemporaryDirectory() as folder:
        bundle = download(BICEP_TYPES, Path(folder))
        (executable,) = [name for name in bundle.namelist() if name.endswith("/azmcp")]
        files = list(embedded.files(embedded.assembly(bundle.read(executable))))
        for path in SCHEMAS.glob("*.json"):
            path.unlink()
        for provider, names in wanted().items():
            package = SDKS.get(provider, BICEP_TYPES)
            if provider in SDKS:
                table = from_sdk(package, names, download(package, Path(folder)))
            else:
                table = from_bicep(names, files)
            source = {
                "package": package,
                "licence": "MIT, Microsoft",
                "made by": "python -m tests.infra.export",
            }
            (SCHEMAS / f"{provider}.json").write_text(table.text(source))
            print(f"{provider}: {len(table.resources)} resources, {len(table.types)} types from {package}")


if __name__ == "__main__":
    main()

"""`python -m tests.infra.check [file]`: checks the template without a cloud, and says what it saw."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.infra.findings import Fault, Report
from tests.infra.syntax import entries, key, literal, parts
from tests.infra.template import Declaration, Template
from tests.infra.types import SCHEMAS

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "infra" / "main.bicep"


class Check:
    """A template, its modules and its parameter file."""

    def __init__(self, main: Path) -> None:
        self.main, self.report = main.resolve(), Report()
        self.templates: dict[Path, Template] = {}

    def run(self) -> Report:
        """Check every file that is used, each once."""
        self.load(self.main)
        for template in list(self.templates.values()):
            template.check()
        self.parameters(self.main.with_suffix(".parameters.json"))
        return self.report

    def load(self, path: Path) -> Template | None:
        """Parse a file and the files that it uses."""
        if path not in self.templates and path.is_file():
            self.report.files.append(path)
            name = str(path.relative_to(self.main.parent))

            def resolve(written: str) -> Template | None:
                return self.load((path.parent / written).resolve())

            self.templates[path] = template = Template(name, path.read_text(), self.report, resolve)
            for item in template.declarations:
                if item.kind == "module":
                    resolve(literal(parts(item.node)[1]) or "")
        return self.templates.get(path)

    def parameters(self, path: Path) -> None:
        """Check that azd's parameter file names only existing parameters, all required ones, and allowed
        values."""
        main = self.templates[self.main]
        if not (path.is_file() and main.sound):
            return
        self.report.files.append(path)
        given = json.loads(path.read_text())["parameters"]
        for name, entry in given.items():
            if name not in main.parameters:
                self.report.faults.add(Fault(path.name, 1, f"the template has no parameter {name}"))
                continue
            wanted = main.parameters[name][0]
            value = re.sub(r"^\$\{\w+=?(.*)\}$", r"\1", str(entry["value"]))
            if wanted.values and value and value not in wanted.values:
                self.report.faults.add(Fault(path.name, 1, f"{name}: {value} is not {wanted}"))
        made = {item.name for item in main.declarations if is_generated(item)}
        for name, (_, flags) in main.parameters.items():
            if flags and name not in given and name not in made:
                self.report.faults.add(Fault(path.name, 1, f"{name} is missing"))


def is_generated(item: Declaration) -> bool:
    """Return whether azd generates a parameter's value, once: `@metadata({ azd: { type: 'generate' } })`."""
    for argument in item.decorators.get("metadata", ()):
        for name, value in entries(argument):
            if key(name) == "azd":
                return any(key(one) == "type" and literal(of) == "generate" for one, of in entries(value))
    return False


def sources() -> list[str]:
    """Return the sources of the schemas, one line for each."""
    return [
        f"{path.stem}: {json.loads(path.read_text())['source']['package']}"
        for path in sorted(SCHEMAS.glob("*.json"))
    ]


def main(path: Path) -> int:
    """Print the report; return 1 if there is a fault."""
    report = Check(path).run()
    print("files", *(f"  {file.relative_to(path.resolve().parent)}" for file in report.files), sep="\n")
    print(
        "resource types", *(f"  {name} ({number})" for name, number in sorted(report.types.items())), sep="\n"
    )
    print("schemas from", *(f"  {line}" for line in sources()), sep="\n")
    print("checked", *(f"  {number} {name}" for name, number in sorted(report.counts.items())), sep="\n")
    print(f"not decided, as it depends on values given later: {len(report.passed_over)}")
    print(*(f"  {item}" for item in sorted(report.passed_over)), sep="\n")
    print(f"faults: {len(report.faults)}")
    print(*(f"  {item}" for item in sorted(report.faults)), sep="\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else MAIN))

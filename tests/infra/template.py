"""One Bicep file: its declarations, and the check of each declaration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tree_sitter import Node

from tests.infra.expressions import Scope
from tests.infra.findings import Report
from tests.infra.functions import DECORATORS
from tests.infra.runtime import waits_for
from tests.infra.syntax import entries, faults, key, line, literal, parse, parts, text
from tests.infra.types import ANY, PLACE, PRIMITIVES, REQUIRED, STRING, Type, array, record, resources
from tests.infra.values import Checker

KINDS = {
    "parameter_declaration": "parameter",
    "variable_declaration": "variable",
    "resource_declaration": "resource",
    "module_declaration": "module",
    "output_declaration": "output",
}
OTHERS = ("target_scope_assignment", "metadata_declaration", "decorators", "comment", "diagnostic_comment")
RESOURCE_KEYS = {"scope": (PLACE, 0), "parent": (PLACE, 0), "dependsOn": (array(PLACE), 0)}
MODULE_KEYS = {"name": (STRING, 0), "scope": (PLACE, 0), "dependsOn": (array(PLACE), 0)}


@dataclass
class Declaration:
    """A statement of the template, and the decorators above it."""

    kind: str
    name: str
    node: Node
    decorators: dict[str, list[Node]]


@dataclass
class Template:
    """A parsed file. `resolve` returns the template for a module's path, or None."""

    file: str
    source: str
    report: Report
    resolve: Callable[[str], Template | None]
    declarations: list[Declaration] = field(default_factory=list)
    parameters: dict[str, tuple[Type, int]] = field(default_factory=dict)
    outputs: dict[str, tuple[Type, int]] = field(default_factory=dict)
    sound: bool = True

    def __post_init__(self) -> None:
        self.checker = Checker(self.file, self.report)
        self.scope = Scope({}, self.checker.say)
        self.resource_types: dict[str, str] = {}
        root = parse(self.source)
        for at, why in faults(root):
            self.sound = False
            self.checker.say(at, why)
        if self.sound:
            self._read(root)

    def _read(self, root: Node) -> None:
        decorators: dict[str, list[Node]] = {}
        for node in root.named_children:
            if node.type == "decorators":
                decorators = self._decorators(node)
            elif node.type in KINDS:
                name = text(parts(node)[0])
                self.declarations.append(Declaration(KINDS[node.type], name, node, decorators))
                decorators = {}
            elif node.type not in OTHERS:
                self.checker.say(line(node), f"the check does not know a {node.type.replace('_', ' ')}")
        for item in self.declarations:
            if item.kind == "parameter":
                self.parameters[item.name] = self._parameter(item)
            elif item.kind == "output":
                self.outputs[item.name] = (self._declared(parts(item.node)[1]), 0)

    def _decorators(self, node: Node) -> dict[str, list[Node]]:
        found = {}
        for decorator in parts(node):
            callee, arguments = parts(parts(decorator)[0])
            found[text(callee)] = parts(arguments)
            if text(callee) not in DECORATORS:
                self.checker.say(line(decorator), f"no decorator {text(callee)} is known")
        return found

    def _parameter(self, item: Declaration) -> tuple[Type, int]:
        found = self._declared(parts(item.node)[1])
        entry = dict(found.entry)
        if "allowed" in item.decorators and found.kind in ("string", "int"):
            allowed = parts(item.decorators["allowed"][0])
            entry["values"] = [text(value) if found.kind == "int" else literal(value) for value in allowed]
        for name, limit in (
            ("minValue", "min"),
            ("maxValue", "max"),
            ("minLength", "min"),
            ("maxLength", "max"),
        ):
            if name in item.decorators:
                entry[limit] = int(text(item.decorators[name][0]))
        optional = len(parts(item.node)) > 2 or text(parts(item.node)[1]).endswith("?")
        return Type(entry, found.table), 0 if optional else REQUIRED

    def _declared(self, node: Node) -> Type:
        """Return the type that is written after the name of a parameter or output."""
        written = text(node).removesuffix("?")
        if written.endswith("[]"):
            return array(PRIMITIVES.get(written[:-2], ANY))
        if written not in PRIMITIVES:
            self.checker.say(line(node), f"the check does not know the type {written}")
        return PRIMITIVES.get(written, ANY)

    def check(self) -> None:
        """Check every declaration."""
        if not self.sound:
            return
        self._name_all()
        for item in self.declarations:
            self.report.counts[f"{item.kind}s"] += 1
            getattr(self, f"_check_{item.kind}")(item)
        for item in self.declarations:
            if item.kind in ("parameter", "variable") and item.name not in self.scope.used:
                self.checker.say(line(item.node), f"{item.kind} {item.name} is used nowhere")

    def _name_all(self) -> None:
        named = [item for item in self.declarations if item.kind != "output"]
        for item in named:
            if item.name in self.scope.names:
                self.checker.say(line(item.node), f"{item.name} is declared twice")
            self.scope.names[item.name] = ANY
        quiet = Scope(self.scope.names, lambda _line, _why: None)
        for item in sorted(named, key=lambda one: one.kind == "variable"):
            self.scope.names[item.name] = self._symbol(item, quiet)

    def _symbol(self, item: Declaration, quiet: Scope) -> Type:
        if item.kind == "parameter":
            return self.parameters[item.name][0]
        if item.kind == "variable":
            return quiet.type_of(parts(item.node)[-1])
        written = literal(parts(item.node)[1]) or ""
        if item.kind == "resource":
            self.resource_types[item.name] = written
            found = resources().get(written, ANY)
        else:
            module = self.resolve(written)
            outputs = record(module.outputs) if module and module.sound else ANY
            found = record({"name": (STRING, 0), "outputs": (outputs, 0)})
        return array(found) if parts(item.node)[-1].type == "for_statement" else found

    def _check_parameter(self, item: Declaration) -> None:
        if len(parts(item.node)) > 2:
            self.checker.value(parts(item.node)[2], self.parameters[item.name][0], self.scope, item.name)

    def _check_variable(self, item: Declaration) -> None:
        self.scope.type_of(parts(item.node)[-1])

    def _check_output(self, item: Declaration) -> None:
        self.checker.value(parts(item.node)[2], self.outputs[item.name][0], self.scope, f"output {item.name}")

    def _check_resource(self, item: Declaration) -> None:
        written = self.resource_types[item.name]
        published = resources().get(written)
        self.report.types[written] += 1
        if published is None:
            self.checker.say(
                line(item.node), f"{written}: no such type and version among the published ones held"
            )
            return
        existing = any(child.type == "existing" for child in item.node.children)
        own = {"name": published.properties["name"]} if existing else published.properties
        self._body(item, record({**own, **RESOURCE_KEYS}), f"{item.name}")

    def _check_module(self, item: Declaration) -> None:
        written = literal(parts(item.node)[1]) or ""
        module = self.resolve(written)
        if module is None:
            self.checker.say(line(item.node), f"there is no file {written}")
            return
        needed = REQUIRED if any(flags & REQUIRED for _, flags in module.parameters.values()) else 0
        parameters = record(module.parameters) if module.sound else ANY
        self._body(item, record({**MODULE_KEYS, "params": (parameters, needed)}), f"{item.name}")

    def _body(self, item: Declaration, target: Type, path: str) -> None:
        scope, body = self.scope, parts(item.node)[-1]
        if body.type == "for_statement":
            scope, body = scope.loop(body)
        if body.type == "if_statement":
            condition, body = parts(body)
            scope.type_of(condition)
        self.checker.value(body, target, scope, path)
        if item.kind == "resource":
            self._parent(item, body)
        kinds = {other.name: other.kind for other in self.declarations}
        for name, value in entries(body):
            if key(name) in ("name", "scope", "parent") and (why := waits_for(value, kinds)):
                self.checker.say(line(value), f"{path}.{key(name)} must be known at the start; {why} is not")
            if key(name) in ("scope", "parent") and kinds.get(text(value), "resource") != "resource":
                self.checker.say(line(value), f"{path}.{key(name)}: {text(value)} is no resource")

    def _parent(self, item: Declaration, body: Node) -> None:
        """Check a child's type: it begins with its parent's type. A nested type has either a parent or its
        full name."""
        own = self.resource_types[item.name].partition("@")[0]
        given = next((text(value) for name, value in entries(body) if key(name) == "parent"), None)
        owner = self.resource_types.get(given or "", "").partition("@")[0]
        if given and own.rpartition("/")[0] != owner:
            self.checker.say(line(body), f"{item.name}: {given} is no parent of {own}")
        if given is None and own.count("/") > 1:
            self.checker.say(line(body), f"{item.name}: {own} needs a parent")

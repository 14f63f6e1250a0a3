"""Writes schemas for kubeconform from Kubernetes' own OpenAPI description, one file a kind.

    tools/kubernetes-schemas.py SWAGGER.json DIRECTORY

Strict: a field that the API does not know is an error.
"""

import json
import sys
from pathlib import Path
from typing import Any

INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def plain(node: Any) -> Any:
    """A schema without what only Kubernetes knows, and with no other fields than its own."""
    if isinstance(node, list):
        return [plain(each) for each in node]
    if not isinstance(node, dict):
        return node
    left = ("description", "format")
    result = {
        key: plain(value)
        for key, value in node.items()
        if key not in left and not key.startswith("x-kubernetes")
    }
    if isinstance(result.get("properties"), dict) and "type" in result:
        result.setdefault("additionalProperties", False)
    return result


def references(node: Any) -> set[str]:
    """Names of the definitions that a schema needs at once."""
    if isinstance(node, list):
        return {name for each in node for name in references(each)}
    if not isinstance(node, dict):
        return set()
    found = {name for value in node.values() for name in references(value)}
    if isinstance(node.get("$ref"), str):
        found.add(node["$ref"].rsplit("/", 1)[1])
    return found


def main() -> None:
    """Write them all."""
    described = json.loads(Path(sys.argv[1]).read_text())["definitions"]
    into = Path(sys.argv[2])
    into.mkdir(parents=True, exist_ok=True)
    definitions = {name: plain(schema) for name, schema in described.items()}
    definitions[INT_OR_STRING] = {"type": ["string", "integer"]}
    definitions[QUANTITY] = {"type": ["string", "number"]}
    for name, schema in described.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        if len(kinds) != 1:
            continue  # of every group, as DeleteOptions
        group, version, kind = (kinds[0][part] for part in ("group", "version", "kind"))
        needed, wanted = {}, references(definitions[name])
        while wanted:
            other = wanted.pop()
            if other not in needed:
                needed[other] = definitions[other]
                wanted |= references(definitions[other])
        properties = {
            **definitions[name].get("properties", {}),
            "kind": {"const": kind},
            "apiVersion": {"const": f"{group}/{version}" if group else version},
        }
        whole = {**definitions[name], "properties": properties, "definitions": needed}
        whole["required"] = sorted({*whole.get("required", ()), "kind", "apiVersion"})
        parts = [kind, *([group.split(".")[0]] if group else []), version]
        (into / f"{'-'.join(parts).lower()}.json").write_text(json.dumps(whole))


if __name__ == "__main__":
    main()

"""JSON Schema, as far as the descriptions of calls need it."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
SECONDS: Schema = {"type": "number", "minimum": 0}
ANYTHING: Schema = {}


def maybe(schema: Schema) -> Schema:
    """Null, too, where it is not known or does not apply."""
    return {**schema, "type": [schema["type"], "null"]}


def array(items: Schema) -> Schema:
    """An array of these."""
    return {"type": "array", "items": items}


def record(**properties: Schema) -> Schema:
    """An object with all of these members, and no others."""
    return {**options(**properties), "required": list(properties)}


def options(**properties: Schema) -> Schema:
    """An object with any of these members, and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}

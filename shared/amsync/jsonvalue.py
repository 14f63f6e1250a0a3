"""A document's value as JSON shows it: bytes as base64, times in ISO 8601."""

import base64
import datetime
import math


def jsonable(value: object) -> object:
    """Replace what JSON does not know by text."""
    match value:
        case dict():
            return {str(name): jsonable(item) for name, item in value.items()}
        case list():
            return [jsonable(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value

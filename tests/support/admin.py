"""What an operator reads on the admin port, and the calls that need the token."""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import jsonschema

from amsync.version import API_PATH

SECONDS = 20.0
CALL_SECONDS = 60.0
"""A gateway answers within 30."""

_SAMPLE = re.compile(r"^(amsync_\S+?) ([0-9.e+-]+)$", re.MULTILINE)


def readiness(admin_url: str) -> tuple[int, Any]:
    """Status and content of /readyz."""
    try:
        with urllib.request.urlopen(f"{admin_url}/readyz", timeout=SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def metrics(admin_url: str) -> dict[str, float]:
    """All samples by name with labels, as `amsync_closes_total{reason="silent"}`."""
    with urllib.request.urlopen(f"{admin_url}/metrics", timeout=SECONDS) as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in _SAMPLE.findall(text)}


class AdminCalls:
    """Calls of one admin port, below the API's path.

    Attributes:
        kind: Content-Type of the last answer.
    """

    def __init__(self, admin_url: str, token: str | None) -> None:
        self.url, self.token = f"{admin_url}{API_PATH}", token
        self.kind = ""

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and content: what JSON says, else bytes; None if there is none."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, method=method)
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS) as answer:
                return self._said(answer)
        except urllib.error.HTTPError as error:
            with error:
                return self._said(error)

    def _said(self, answer: Any) -> tuple[int, Any]:
        self.kind = answer.headers["Content-Type"] or ""
        text = answer.read()
        if not text:
            return answer.status, None
        return answer.status, json.loads(text) if "json" in self.kind else text


class DescribedCalls(AdminCalls):
    """The same; every answer is held against the port's own OpenAPI document."""

    def __init__(self, admin_url: str, token: str | None) -> None:
        super().__init__(admin_url, token)
        with urllib.request.urlopen(f"{admin_url}/openapi.json", timeout=SECONDS) as answer:
            self.document = json.load(answer)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, said = super().call(method, path, body, **headers)
        operation = self.operation(method, path)
        if operation is None:
            assert status in (401, 404, 405)
            return status, said
        described = operation["responses"][str(status)]
        kind = self.kind.partition(";")[0]
        if "content" in described:
            schema = described["content"][kind]["schema"]
            if kind != "application/octet-stream":
                jsonschema.validate(said, {**schema, "components": self.document["components"]})
        else:
            assert said is None
        return status, said

    def operation(self, method: str, path: str) -> Any:
        """What the document has for a call; None if it knows none."""
        parts = path.partition("?")[0].split("/")
        for template, operations in self.document["paths"].items():
            names = template.split("/")
            if len(names) == len(parts) and all(
                name == part or name.startswith("{")
                for name, part in zip(names, parts, strict=True)
            ):
                return operations.get(method.lower())
        return None

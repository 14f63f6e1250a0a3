"""docs/api.md names every call of the OpenAPI document, and no other, each with an example."""

import re
from pathlib import Path

from .conftest import Api

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SECTION = re.compile(r"^### `([A-Z]+) (\S+)`\n\n(```sh\n.*?```)?", re.MULTILINE | re.DOTALL)


def test_docs_have_every_call_with_an_example(api: Api) -> None:
    described = {
        (method.upper(), path)
        for path, operations in api.document["paths"].items()
        for method in operations
    }
    found = {(method, path): example for method, path, example in SECTION.findall(TEXT)}

    assert found.keys() == described
    for (_, path), example in found.items():
        assert f'"$A{path.partition("{")[0]}' in example, path


def test_docs_name_every_status_of_a_problem(api: Api) -> None:
    described = {
        status
        for operations in api.document["paths"].values()
        for operation in operations.values()
        for status in operation["responses"]
        if int(status) >= 400
    }
    rows = re.findall(r"^\| (\d[\d, ]+) \|", TEXT, re.MULTILINE)
    assert described - {"500"} <= {each for row in rows for each in row.split(", ")}

"""What most tests of documents need: a document id, and a shard with its volume and clients."""

import pytest

from amsync.ids import DocumentId

from .net import Net, new_document


@pytest.fixture
def document_id() -> DocumentId:
    return new_document()


@pytest.fixture
def net() -> Net:
    return Net()

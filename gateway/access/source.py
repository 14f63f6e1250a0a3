"""What the policy needs of who has a say and takes time to say it."""

from typing import Protocol

from amsync.gateway.access.config import Decision
from amsync.gateway.caller import Caller
from amsync.ids import DocumentId


class SourceFailed(Exception):
    """There is no answer, or none that can be understood.

    Attributes:
        label: A short fixed text, for metrics.
    """

    def __init__(self, label: str, what: str) -> None:
        super().__init__(what)
        self.label = label


class Source(Protocol):
    """Somebody to ask.

    Attributes:
        name: For metrics and logs.
        timeout_seconds: How long an answer may take; the policy sees to that.
    """

    name: str
    timeout_seconds: float

    async def ask(self, caller: Caller, document_id: DocumentId) -> Decision:
        """Decide. Raises SourceFailed, or anything else, which counts as that."""

    async def close(self) -> None:
        """Let everything go."""

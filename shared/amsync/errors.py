"""Every error that amsync raises on purpose, by whose fault it is.

Not here: errors inside the native engine (`amsync._automerge`), which the worker turns into
faults of one document before anyone else sees them.

Messages say what was attempted, what was found and what to do. They never hold a token or
document bytes.
"""


class AmsyncError(Exception):
    """Root of all errors of this package."""


class ConfigError(AmsyncError):
    """The operator asked for the impossible: which option, what was found, what is allowed."""


class VolumeError(AmsyncError):
    """The data directory can't be used as it is; nothing was changed in it."""


class VolumeBusy(VolumeError):
    """Another live server holds the data directory."""


class StorageError(AmsyncError):
    """Reading or writing the volume failed. Nothing was acknowledged; retrying may help."""


class StorageFull(StorageError):
    """The volume has no space left. Nothing was acknowledged; the caller keeps its data."""


class ReadBackDiffers(StorageError):
    """A file that was just written holds other bytes: a broken disk, or another writer."""


class StorageBehind(StorageFull):
    """Checkpoints are late, so the WAL's tail is full. Nothing was written; retry in a moment."""


class VolumeLost(StorageError):
    """Another server has taken the data directory over. Nothing may be acknowledged; stop."""


class StaleEpoch(StorageError):
    """A higher epoch has opened this shard. Drop the shard, don't retry."""


class BusError(AmsyncError):
    """The bus did not take or give an entry; retrying may help."""


class BusFull(BusError):
    """A stream is at its byte bound. The entry was not taken; the caller waits and retries."""


class NoOwner(AmsyncError):
    """Nobody owns a shard at the moment. Nothing was done; retrying helps."""


class NoAnswer(AmsyncError):
    """A shard's owner has not answered in time. What was asked may be done, or be done later."""


class TooLarge(BusError):
    """The bus could never take so large an entry. Nothing was done."""


class StaleLease(AmsyncError):
    """A shard's lease is not held (any more). Nothing was done; drop the shard, don't retry."""


class RemoteProtocolError(AmsyncError):
    """The peer broke the protocol.

    Attributes:
        reason: A short fixed label, safe as a metric label and in an `error` message.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class AuthRefused(AmsyncError):
    """A client's token does not let it in.

    Attributes:
        status: 401: it does not show who the client is; 403: it does, and that one may not.
        reason: A short fixed label, safe as a metric label and as an HTTP body.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.reason = reason


class InvalidDocumentId(AmsyncError):
    """The text is not a base58check document id of 1 to 64 bytes."""


class DocumentExists(AmsyncError):
    """A document with this id is already stored."""


class DocumentNotFound(AmsyncError):
    """No document with this id is stored."""


class DocumentDeleted(AmsyncError):
    """The document was deleted; a deleted id is never created again."""


class UnreadableDocument(AmsyncError):
    """The document is stored, but what was asked of it can't be made of its content."""


class InvalidDocument(AmsyncError):
    """The bytes are not automerge changes or a saved document that this one can take in."""


class ServerClosed(AmsyncError):
    """The server is not running."""

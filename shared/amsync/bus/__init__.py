"""The streams between gateways and workers: one port, and an implementation in memory."""

from amsync.bus.memory import MemoryBus
from amsync.bus.port import (
    Bus,
    Parcel,
    Position,
    Reader,
    StreamEntry,
    access_stream,
    gateway_stream,
    shard_stream,
)

__all__ = [
    "Bus",
    "MemoryBus",
    "Parcel",
    "Position",
    "Reader",
    "StreamEntry",
    "access_stream",
    "gateway_stream",
    "shard_stream",
]

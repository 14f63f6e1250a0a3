"""Processes of different versions on one bus: what is not known is skipped, and counted."""

import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgpack
import pytest

from amsync import generate_document_id
from amsync.bus import gateway_stream
from amsync.ids import DocumentId
from amsync.protocol.envelope import (
    HandedOver,
    HandOver,
    Open,
    Owned,
    Resume,
    SyncIn,
    SyncOut,
    unpack_outbound,
)
from support.rawclient import EMPTY_SYNC

from .checker import assert_survived
from .redisview import PREFIX, RedisView, inbound, stream_of
from .scenes import shard, typing_in_a_cluster

NEWER = "newer0"
UNKNOWN_KIND = 250

pytestmark = pytest.mark.slow


def entry(sequence: int, *items: list[Any]) -> bytes:
    """An entry of a version to come: another number, and a field more."""
    packed: bytes = msgpack.packb([2, NEWER, sequence, time.time(), list(items), {"new": 1}])
    return packed


def item(of: Any) -> list[Any]:
    """An item with a field more at its end."""
    return [of.KIND, *[getattr(of, field.name) for field in fields(of)], {"new": 1}]


def test_newer_gateway_is_served(tmp_path: Path) -> None:
    """It says kinds and fields that the workers don't know, and is answered all the same."""
    document = DocumentId(generate_document_id())
    number = shard(document)
    with (
        typing_in_a_cluster(tmp_path, documents=2) as scene,
        RedisView(scene.cluster.redis.socket) as view,
    ):
        owner = scene.cluster.worker_of(number)
        epoch = scene.cluster.status()["shards"][number]["epoch"]
        view.beat("gateway", NEWER, json.dumps({"version": "99", "new": [1]}).encode())
        view.beat("janitor", NEWER, b"of a kind that nobody knows")
        view.add(
            inbound(number),
            entry(
                1,
                [UNKNOWN_KIND, "whatever", 7],
                item(HandOver(0, epoch, 1)),
                item(Open(7, "peer", None, False, ())),
                item(Resume(7, document, 2, True, True, b"", False, False, False)),
                [UNKNOWN_KIND],
                item(HandedOver(0, 1)),
                item(SyncIn(7, document, 2, True, True, EMPTY_SYNC)),
            ),
        )

        answers = view.wait_items(gateway_stream(PREFIX, NEWER), SyncOut)

        assert {answer.document_id for answer in answers} == {document}
        assert all(7 in answer.connections for answer in answers)
        assert owner.samples()[unknown("inbound")] == 2
        states = {g["gateway_id"]: g["version"] for g in scene.cluster.status()["gateways"]}
        assert states[NEWER] == "99"
        scene.fleet.wait_edits(10)
        assert scene.fleet.losses() == []
        assert_survived(scene.cluster, scene.fleet)


def test_newer_worker_is_understood(tmp_path: Path) -> None:
    """It says kinds and fields that the gateways don't know, beside what concerns nobody."""
    with (
        typing_in_a_cluster(tmp_path, documents=2) as scene,
        RedisView(scene.cluster.redis.socket) as view,
    ):
        gateway = scene.cluster.gateways[0]
        stream = stream_of(scene.cluster, gateway)
        strange = [3, 1, UNKNOWN_KIND, "whatever", 7]
        view.add(stream, entry(1, strange, [-1, 0, *item(Owned(()))], [0, 0, UNKNOWN_KIND]))
        view.add(stream, b"no entry at all")
        scene.fleet.wait(lambda: gateway.event_count("bad_entries") == 1, "both were read")
        scene.fleet.wait_edits(10)

        assert gateway.samples()[unknown("outbound")] == 2
        assert gateway.log().count("an entry of the bus is skipped") == 1
        assert scene.fleet.losses() == []
        assert_survived(scene.cluster, scene.fleet)


def unknown(label: str) -> str:
    return f'amsync_events_total{{event="unknown_items",label="{label}"}}'


def test_stream_of_the_newer_can_be_read_by_us() -> None:
    """The fakes above are what our own reader takes for entries."""
    found = unpack_outbound(entry(4, [3, 1, *item(Owned(((3, 1),)))], [3, 1, UNKNOWN_KIND]))

    assert (found.sender, found.sequence, found.unknown) == (NEWER, 4, 1)
    assert [stamped.item for stamped in found.items] == [Owned([[3, 1]])]

"""A Redis that could never hold the largest messages: they are refused, and in nobody's way."""

import contextlib
import os
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from amsync import generate_document_id
from amsync.worker.engine import build_document
from server.replicas import ReplicaClient
from support.admin import AdminCalls
from support.rawclient import RawClient
from support.redisserver import RedisServer

from .processes import ClusterProcesses

TOKEN = "an-admin-token-for-tests"
MEGABYTE = 1024 * 1024
MEMORY = ("--maxmemory", "40mb", "--maxmemory-policy", "noeviction")


def test_what_redis_could_never_hold_is_refused(tmp_path: Path) -> None:
    options = ("--admin-token", TOKEN)
    with (
        RedisServer(*MEMORY) as redis,
        ClusterProcesses(tmp_path, redis=redis, gateway_options=options) as cluster,
    ):
        (gateway,) = cluster.gateways
        document_id = generate_document_id()
        with (
            RawClient(gateway.url, peer_id="large") as large,
            ReplicaClient(gateway.url, document_id) as client,
        ):
            large.join()
            with contextlib.suppress(ConnectionClosed):  # while it still sends
                large.sync(generate_document_id(), os.urandom(30 * MEGABYTE))
            large.wait_closed()
            assert gateway.samples()['amsync_closes_total{reason="protocol_error"}'] == 1

            client.put("a", 1)
            client.wait_acknowledged()

        calls = AdminCalls(gateway.admin, TOKEN)
        for size, wanted in ((30 * MEGABYTE, 413), (4 * MEGABYTE, 200)):
            saved = build_document({"data": os.urandom(size)})
            path = f"/documents/{generate_document_id()}/automerge"
            status, said = calls.call("PUT", path, saved, Content_Type="application/octet-stream")
            assert status == wanted, said
        assert calls.call("GET", f"/documents/{document_id}")[0] == 200

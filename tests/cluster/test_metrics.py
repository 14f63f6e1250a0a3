"""What gateway and worker of a cluster tell, after some traffic: metrics and lines of the log."""

import json
from pathlib import Path

from support.exposition import check_exposition

from .scenes import typing_in_a_cluster


def test_gateway_and_worker_expose_what_the_table_says(tmp_path: Path) -> None:
    with typing_in_a_cluster(
        tmp_path,
        documents=1,
        clients=1,
        gateways=1,
        workers=1,
        worker_options=("--log-format", "json"),
    ) as scene:
        scene.fleet.wait_edits(3)
        scene.fleet.converge()
        (gateway,), (worker,) = scene.cluster.gateways, scene.cluster.workers
        check_exposition(gateway.admin, "gateway")
        check_exposition(worker.admin, "worker")
        of_gateway, of_worker = gateway.samples(), worker.samples()
        lines = [json.loads(line) for line in worker.log().splitlines()]
        worker_id = worker.worker_id

    assert of_worker["amsync_shards_owned"] == 64
    assert of_worker["amsync_edit_to_disk_seconds_count"] >= 3
    assert of_worker['amsync_lease_renewals_total{result="kept"}'] >= 64
    assert of_worker["amsync_volume_free_bytes"] > 0
    assert of_worker["amsync_lag_seconds"] == of_worker["amsync_lag_entries"] == 0
    for samples in (of_gateway, of_worker):
        assert samples["amsync_redis_memory_used_bytes"] > 100_000
        assert samples["amsync_redis_keeps_entries"] == 1
        assert samples["amsync_bus_reconnects_total"] == 0
        assert samples["amsync_stream_bytes"] >= 0
        assert samples["amsync_loop_lag_seconds_count"] >= 1
        assert samples["process_resident_memory_bytes"] > 1_000_000

    assert "shards taken over" in {line["event"] for line in lines}
    assert {line["role"] for line in lines} == {"worker"}
    assert all(line["worker_id"].startswith(worker_id) for line in lines)

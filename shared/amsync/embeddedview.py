"""The state of an embedded server, in the shape of that of a cluster."""

import socket
from dataclasses import asdict

from amsync.gateway.gateway import Gateway
from amsync.metrics import Metrics
from amsync.status import (
    ClusterStatus,
    GatewayMeter,
    GatewayStatus,
    ShardStatus,
    WorkerMeter,
    WorkerStatus,
    problems_of,
)
from amsync.storage.volume import Volume
from amsync.version import __version__
from amsync.worker.worker import Worker


class EmbeddedView:
    """Looks at the parts of one server, whose gateway and worker have one id."""

    def __init__(self, metrics: Metrics, incarnation: str) -> None:
        self._me = incarnation
        self._gateway, self._worker = GatewayMeter(metrics), WorkerMeter(metrics)

    def look(self, gateway: Gateway, worker: Worker, volume: Volume, url: str) -> ClusterStatus:
        """As it is now."""
        shards = [
            ShardStatus(number, self._me, shard.epoch, len(shard.documents), shard.waiting_count, 0)
            for number, shard in sorted(worker.shards.items())
        ]
        gateways = [self._look_at_gateway(gateway, url)]
        workers = [self._look_at_worker(worker, sum(each.documents for each in shards))]
        return ClusterStatus(
            mode="embedded",
            version=__version__,
            cluster_id=volume.cluster_id,
            storage_id=volume.storage_id,
            gateway=self._me,
            epoch="",
            gateways=gateways,
            workers=workers,
            shards=shards,
            problems=problems_of(gateways, workers, shards),
        )

    def _look_at_gateway(self, gateway: Gateway, url: str) -> GatewayStatus:
        return GatewayStatus(
            **asdict(self._gateway.read(gateway.loop_lag_seconds)),
            gateway_id=self._me,
            host=socket.gethostname(),
            address=url,
            version=__version__,
            state="serving" if gateway.is_accepting else "draining",
            connections=gateway.connection_count,
        )

    def _look_at_worker(self, worker: Worker, document_count: int) -> WorkerStatus:
        trouble = worker.storage_trouble
        return WorkerStatus(
            **asdict(self._worker.read(worker.document_bytes)),
            worker_id=self._me,
            host=socket.gethostname(),
            version=__version__,
            state="serving" if trouble is None else str(trouble),
            shards=len(worker.shards),
            documents=document_count,
        )

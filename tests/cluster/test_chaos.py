"""Faults one after the other, some at once, in an order that nobody has thought of."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.redisserver import RedisServer, free_port

from .checker import assert_survived
from .processes import Process
from .proxy import Proxy
from .scenes import Scene, typing_in_a_cluster

FAULTS = 12
STOP_SECONDS = 8.0
SETTLE_SECONDS = 90.0


class Chaos:
    """What can be done to a cluster; everything that is broken is whole again afterwards."""

    def __init__(self, scene: Scene, proxy: Proxy, randomness: random.Random) -> None:
        self._scene, self._proxy, self._random = scene, proxy, randomness
        self.gateways_ended = 0

    def do(self) -> str:
        """Do something; returns what."""
        deeds: list[Callable[[], None]] = [
            self.kill_worker,
            self.kill_gateway,
            self.end_worker,
            self.stop_worker,
            self.stop_gateway,
            self.restart_redis,
            self.empty_redis,
            self.cut_redis_off,
            self.kill_worker_and_redis,
        ]
        deed = self._random.choice(deeds)
        deed()
        return deed.__name__

    def kill_worker(self) -> None:
        self._any_worker().kill9()
        self._scene.cluster.add_worker()

    def end_worker(self) -> None:
        self._scene.cluster.add_worker()
        assert self._any_worker().signal(signal.SIGTERM) == 0

    def kill_gateway(self) -> None:
        gateway = self._random.choice([g for g in self._scene.cluster.gateways if g.running()])
        gateway.kill9()
        self._scene.cluster.add_gateway(port=int(gateway.url.rpartition(":")[2]))
        self.gateways_ended += 1

    def stop_worker(self) -> None:
        self._stop(self._any_worker())

    def stop_gateway(self) -> None:
        self._stop(self._random.choice([g for g in self._scene.cluster.gateways if g.running()]))

    def restart_redis(self) -> None:
        self._scene.cluster.redis.kill9()
        self._pause(2)
        self._scene.cluster.redis.start()

    def empty_redis(self) -> None:
        redis = self._scene.cluster.redis
        redis.kill9()
        shutil.rmtree(redis.folder / "appendonlydir")
        redis.start()

    def cut_redis_off(self) -> None:
        self._random.choice([self._proxy.cut, self._proxy.stall])()
        self._pause(STOP_SECONDS)
        self._proxy.mend()

    def kill_worker_and_redis(self) -> None:
        self._scene.cluster.redis.kill9()
        self._any_worker().kill9()
        self._scene.cluster.redis.start()
        self._scene.cluster.add_worker()

    def _any_worker(self) -> Process:
        return self._random.choice([w for w in self._scene.cluster.workers if w.running()])

    def _stop(self, process: Process) -> None:
        process.process.send_signal(signal.SIGSTOP)
        self._pause(STOP_SECONDS)
        process.process.send_signal(signal.SIGCONT)

    def _pause(self, most_seconds: float) -> None:
        time.sleep(self._random.uniform(0, most_seconds))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_any_faults_in_any_order(tmp_path: Path) -> None:
    seed = int(os.environ.get("AMSYNC_CHAOS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"AMSYNC_CHAOS_SEED={seed}")
    randomness = random.Random(seed)
    with (
        RedisServer(persists=True, port=free_port()) as redis,
        Proxy(redis.port) as proxy,
        typing_in_a_cluster(tmp_path, redis=redis, redis_url=proxy.url) as scene,
    ):
        chaos = Chaos(scene, proxy, randomness)
        for number in range(FAULTS):
            done = chaos.do()
            print(f"{number}: {done}")
            scene.fleet.wait_edits(randomness.choice([0, 5, 30]))
        scene.fleet.converge(SETTLE_SECONDS)
        scene.print_pause("faults in any order")

        assert all(len(c.losses) <= chaos.gateways_ended for c in scene.fleet.clients)
        assert_survived(scene.cluster, scene.fleet)

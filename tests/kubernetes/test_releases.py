"""The chart in a real Kubernetes: installed, tested, upgraded, restarted, killed, under typing.

Each test takes its release as it is and leaves it running.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from interop.driver import Driver
from interop.repos import Doc, Repo
from kubernetes.release import GUARDED, Release

AGAIN_SECONDS = 90.0
"""Far more than anything here should take."""

DOCUMENTS = 8
"""So many that every worker has some, all but surely."""

LEAST_SECONDS = 15.0
"""So long edits are looked at after something that is over at once."""

WORKERS = ("worker.replicas=2", "worker.persistence.accessMode=ReadWriteMany")


def pair(js: Driver, release: Release) -> tuple[Repo, Repo]:
    return js.connect(release.url()), js.connect(release.url())


def typed_through(js: Driver, one: Repo, other: Repo, what: str, event: Callable[[], None]) -> None:
    """Type on both sides while something happens; everything arrives on both, and is saved.

    Says how long it took, the longest round of edits from both sides to both sides until saved,
    over some documents in turn, and how often each side came in anew.
    """
    pairs = [shared_document(one, other) for _ in range(DOCUMENTS)]
    mine, theirs = pairs[0]
    before = [client.connection()["welcomes"] for client in (one, other)]
    for doc, label in ((mine, "mine"), (theirs, "theirs")):
        doc.start_typing(["items"], label, 0.1)
    rounds: list[float] = []
    began = time.monotonic()

    with ThreadPoolExecutor(1) as executor:
        happening = executor.submit(event)
        while not happening.done() or time.monotonic() - began < LEAST_SECONDS:
            rounds.append(exchange(*pairs[len(rounds) % DOCUMENTS], len(rounds)))
        happening.result()

    took = time.monotonic() - began
    written = {*mine.stop_typing(), *theirs.stop_typing()}
    value = js.converge([mine, theirs], AGAIN_SECONDS)
    mine.wait_saved(AGAIN_SECONDS)
    theirs.wait_saved(AGAIN_SECONDS)
    after = [client.wait_connected()["welcomes"] for client in (one, other)]
    came = [now - then for now, then in zip(after, before, strict=True)]
    print(
        f"{what}: {took:.0f} s; longest of {len(rounds)} rounds {max(rounds):.1f} s, median"
        f" {statistics.median(rounds):.2f} s; {len(written)} items; reconnects {came}"
    )
    first = range(0, len(rounds), DOCUMENTS)
    ours = {f"{who} {at}" for at in first for who in ("one", "other")}
    assert sorted(value["items"]) == sorted(written | ours)


def shared_document(one: Repo, other: Repo) -> tuple[Doc, Doc]:
    mine = one.create({"items": []})
    mine.wait_saved(AGAIN_SECONDS)
    return mine, other.find(mine.id, AGAIN_SECONDS)


def exchange(mine: Doc, theirs: Doc, number: int) -> float:
    """How long it takes until an edit of each side is there on the other, and saved."""
    began = time.monotonic()
    mine.edit(["push", ["items"], f"one {number}"])
    theirs.edit(["push", ["items"], f"other {number}"])
    while not {f"one {number}", f"other {number}"} <= set(mine.value()["items"]) & set(
        theirs.value()["items"]
    ):
        assert time.monotonic() - began < AGAIN_SECONDS, "edits don't arrive"
        time.sleep(0.02)
    mine.wait_saved(AGAIN_SECONDS)
    theirs.wait_saved(AGAIN_SECONDS)
    return time.monotonic() - began


def test_a_plain_install_passes_its_test(plain: Release) -> None:
    said = plain.test()

    assert "Phase:          Succeeded" in said
    print(said.splitlines()[-1])


def test_processes_are_confined(plain: Release) -> None:
    for component in ("gateway", "worker", "valkey"):
        name = f"deployment/{plain.full_name}-{component}"
        status = plain.kubectl("exec", name, "--", "cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        token = "/var/run/secrets/kubernetes.io"
        listed = plain.kubectl("exec", name, "--", "sh", "-c", f"ls {token} || echo none")
        assert listed.strip() == "none"


def test_the_only_worker_crashes(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)
    (victim,) = plain.pods("worker")

    typed_through(js, one, other, "kill -9 of the only worker", lambda: plain.kill9(victim))

    assert plain.pods("worker") == [victim]
    assert plain.restarts(victim) == 1
    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_the_pod_of_the_only_worker_is_deleted(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)
    (victim,) = plain.pods("worker")

    typed_through(js, one, other, "the only worker's pod is gone", lambda: plain.delete(victim))

    assert plain.pods("worker") != [victim]
    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_an_upgrade(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)

    def event() -> None:
        plain.helm("upgrade", "gateway.replicas=3", "log.level=debug")
        plain.settle()

    typed_through(js, one, other, "helm upgrade, everything replaced", event)
    assert len(plain.pods("gateway")) == 3
    assert "Succeeded" in plain.test()


def test_a_rolling_restart_of_gateways(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)

    typed_through(js, one, other, "gateways restart", lambda: plain.restart("gateway"))


def test_valkey_is_gone(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)
    (victim,) = plain.pods("valkey")

    typed_through(js, one, other, "Valkey's pod is gone, empty", lambda: plain.delete(victim))

    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_one_of_two_workers_crashes(several: Release, js: Driver) -> None:
    one, other = pair(js, several)

    for victim in several.pods("worker"):
        typed_through(
            js, one, other, "kill -9 of one of two workers", lambda pod=victim: several.kill9(pod)
        )
        several.wait("worker")
    assert [several.restarts(pod) for pod in several.pods("worker")] == [1, 1]
    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_a_rolling_restart_of_workers(several: Release, js: Driver) -> None:
    one, other = pair(js, several)

    typed_through(js, one, other, "workers restart", lambda: several.restart("worker"))

    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_documents_outlive_the_release(several: Release, js: Driver) -> None:
    one = js.connect(several.url())
    doc = one.create({"kept": True})
    doc.wait_saved()
    one.go_offline()

    several.uninstall()
    several.helm("install", *WORKERS)

    assert js.connect(several.url()).find(doc.id, AGAIN_SECONDS).value() == {"kept": True}


def test_tokens_tls_and_passwords_come_from_secrets(guarded: Release) -> None:
    said = guarded.test()
    assert "wss://" in said
    assert "both ways and saved" in said

    guarded.helm("upgrade", *GUARDED)
    guarded.settle()
    assert "refused with 401: no round trip made" in guarded.test()

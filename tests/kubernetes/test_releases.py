"""The chart in a real Kubernetes: installed, tested, upgraded, restarted, killed, under typing.

Each test takes its release as it is and leaves it running.
"""

import time
from collections.abc import Callable

from interop.driver import Driver
from interop.repos import Doc, Repo
from kubernetes.release import Release

AGAIN_SECONDS = 90.0
"""Far more than anything here should take."""

WORKERS = ("worker.replicas=2", "worker.persistence.accessMode=ReadWriteMany")


def pair(js: Driver, release: Release) -> tuple[Repo, Repo]:
    return js.connect(release.url()), js.connect(release.url())


def typed_through(js: Driver, one: Repo, other: Repo, what: str, event: Callable[[], None]) -> None:
    """Type on both sides while something happens; everything arrives on both, and is saved.

    Says the longest time that a round of edits after it took, and how often each side came in.
    """
    mine = one.create({"items": []})
    mine.wait_saved(AGAIN_SECONDS)
    theirs = other.find(mine.id, AGAIN_SECONDS)
    before = [client.connection()["welcomes"] for client in (one, other)]
    for doc, label in ((mine, "mine"), (theirs, "theirs")):
        doc.start_typing(["items"], label, 0.1)
    began = time.monotonic()

    event()

    took = time.monotonic() - began
    pause = exchange(js, mine, theirs)
    written = {*mine.stop_typing(), *theirs.stop_typing()}
    value = js.converge([mine, theirs], AGAIN_SECONDS)
    mine.wait_saved(AGAIN_SECONDS)
    theirs.wait_saved(AGAIN_SECONDS)
    after = [client.wait_connected()["welcomes"] for client in (one, other)]
    came = [now - then for now, then in zip(after, before, strict=True)]
    print(
        f"{what}: {took:.1f} s, the next edits {pause:.1f} s after it,"
        f" {len(written)} items, reconnects {came}"
    )
    assert sorted(value["items"]) == sorted([*written, "now: mine", "now: theirs"])


def exchange(js: Driver, mine: Doc, theirs: Doc) -> float:
    """How long it takes until an edit of each side is there on both, and saved."""
    began = time.monotonic()
    mine.edit(["push", ["items"], "now: mine"])
    theirs.edit(["push", ["items"], "now: theirs"])
    for doc in (mine, theirs):
        doc.wait_saved(AGAIN_SECONDS)
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


def test_the_only_worker_is_killed(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)
    (victim,) = plain.pods("worker")

    def event() -> None:
        plain.kill(victim)
        plain.wait("worker")

    typed_through(js, one, other, "the only worker is killed", event)
    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_an_upgrade(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)

    def event() -> None:
        plain.helm("upgrade", "gateway.replicas=3", "log.level=debug")

    typed_through(js, one, other, "helm upgrade, everything replaced", event)
    assert len(plain.pods("gateway")) == 3
    assert "Succeeded" in plain.test()


def test_a_rolling_restart_of_gateways(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)

    typed_through(js, one, other, "gateways restart", lambda: print(plain.restart("gateway")))


def test_valkey_is_killed(plain: Release, js: Driver) -> None:
    one, other = pair(js, plain)
    (victim,) = plain.pods("valkey")

    def event() -> None:
        plain.kill(victim)
        plain.wait("valkey")

    typed_through(js, one, other, "Valkey is killed, with all that it had", event)


def test_one_of_two_workers_is_killed(several: Release, js: Driver) -> None:
    one, other = pair(js, several)

    for victim in several.pods("worker"):
        typed_through(
            js, one, other, "one of two workers is killed", lambda v=victim: several.kill(v)
        )
        several.wait("worker")
    for client in (one, other):
        assert client.connection()["losses"] == 0


def test_a_rolling_restart_of_workers(several: Release, js: Driver) -> None:
    one, other = pair(js, several)

    typed_through(js, one, other, "workers restart", lambda: print(several.restart("worker")))

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

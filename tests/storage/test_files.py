"""The real file system, where memory can't stand for it: short writes, locks, what is refused."""

import errno
import os
from pathlib import Path

import pytest

from amsync.storage import open_store
from amsync.storage.files import LockHeld, RealFileSystem
from support.fakecodec import FakeCodec, make_chunk

from .shapes import bodies, document


def test_a_write_that_the_kernel_cuts_short_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:7]))
    file = RealFileSystem().create(tmp_path / "a")

    file.write(b"0123456789" * 10)
    file.close()

    assert (tmp_path / "a").read_bytes() == b"0123456789" * 10


def test_a_write_that_takes_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda *_: 0)
    file = RealFileSystem().create(tmp_path / "a")

    with pytest.raises(OSError, match="took no bytes"):
        file.write(b"a")
    file.close()


@pytest.mark.timeout(20)
def test_a_pipe_is_no_file_and_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"content")

    assert RealFileSystem().read(tmp_path / "file") == b"content"
    with pytest.raises(FileNotFoundError, match="Not a regular file"):
        RealFileSystem().read(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        RealFileSystem().read(tmp_path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read_only", [False, True])
def test_pipes_among_documents_cost_only_themselves(tmp_path: Path, read_only: bool) -> None:
    one, two = document(1), document(2)
    folder = tmp_path / one[:2] / one[2:] / "incremental"
    folder.mkdir(parents=True)
    (folder / "good").write_bytes(make_chunk(b"a"))
    os.mkfifo(folder / "pipe")
    os.mkfifo(tmp_path / f"{two}.automerge")

    store = open_store(tmp_path, codec=FakeCodec(), read_only=read_only)

    assert bodies(store, one) == {b"a"}
    assert store.list_ids() == [one]
    assert {finding.kind for finding in store.report()} == {"unreadable", "bad_import"}
    store.close()


def test_a_lock_keeps_others_out_and_shows_what_its_holder_wrote(tmp_path: Path) -> None:
    files = RealFileSystem()
    lock = files.lock(tmp_path / "lock")
    lock.write(b"longer than the next one")
    lock.write(b"holder")

    for shared in (False, True):
        with pytest.raises(LockHeld) as held:
            files.lock(tmp_path / "lock", shared=shared)
        assert held.value.args[0] == b"holder"

    lock.release()
    lock.release()
    files.lock(tmp_path / "lock").release()


def test_readers_share_a_lock_and_keep_a_writer_out(tmp_path: Path) -> None:
    files = RealFileSystem()
    files.lock(tmp_path / "lock").release()
    one = files.lock(tmp_path / "lock", shared=True)
    two = files.lock(tmp_path / "lock", shared=True)

    with pytest.raises(LockHeld):
        files.lock(tmp_path / "lock")
    one.release()
    with pytest.raises(LockHeld):
        files.lock(tmp_path / "lock")
    two.release()

    files.lock(tmp_path / "lock").release()


def test_a_shared_lock_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RealFileSystem().lock(tmp_path / "lock", shared=True)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_from_one_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail_with(number: int) -> None:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("fcntl.flock", flock)

    files = RealFileSystem()
    fail_with(number)
    lock = files.lock(tmp_path / "lock")
    assert not lock.is_enforced
    lock.release()

    fail_with(errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        files.lock(tmp_path / "lock")
    opened = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
    assert tmp_path / "lock" not in opened, "its descriptor is left open"


def test_the_file_system_of_this_machine_is_known_or_taken_for_a_network(tmp_path: Path) -> None:
    files = RealFileSystem()

    assert isinstance(files.is_networked(tmp_path), bool)
    assert files.machine_id() == RealFileSystem().machine_id() != ""

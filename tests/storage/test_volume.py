import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amsync.errors import ConfigError, VolumeBusy, VolumeError
from amsync.storage.files import RealFileSystem, WritableFile
from amsync.storage.volume import Volume
from support.memfs import MemoryFileSystem

from .conftest import ROOT

ADAPTER_ID = "3c9f1f0e-6c0b-4d6b-9a36-0d7e1a1f2b3c"


def open_memory(files: MemoryFileSystem, **options: object) -> Volume:
    return Volume.open(ROOT, files=files, **options)  # type: ignore[arg-type]


def test_second_open_in_the_same_process_is_refused(tmp_path: Path) -> None:
    volume = Volume.open(tmp_path, files=RealFileSystem())

    with pytest.raises(VolumeBusy, match=str(os.getpid())):
        Volume.open(tmp_path, files=RealFileSystem())

    volume.close()
    Volume.open(tmp_path, files=RealFileSystem()).close()


def test_a_volume_held_by_another_process_is_refused_until_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from amsync.storage.files import RealFileSystem\n"
        "from amsync.storage.volume import Volume\n"
        "volume = Volume.open(Path(sys.argv[1]), files=RealFileSystem())\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"

        with pytest.raises(VolumeBusy, match=f"process {child.pid} on "):
            Volume.open(tmp_path, files=RealFileSystem())

        child.send_signal(signal.SIGKILL)
        child.wait()
    Volume.open(tmp_path, files=RealFileSystem()).close()


def test_identity_is_made_once_and_kept(memory: MemoryFileSystem) -> None:
    first = open_memory(memory, shard_count=16)
    first.close()

    second = open_memory(memory, shard_count=64)

    assert second.cluster_id == first.cluster_id
    assert second.storage_id == first.storage_id
    assert second.peer_id == first.peer_id == f"amsync-{first.cluster_id[:12]}"
    assert second.shard_count == 16
    assert second.owner != first.owner


def test_the_storage_id_is_written_where_automerge_repo_looks(memory: MemoryFileSystem) -> None:
    volume = open_memory(memory)

    text = memory.read(ROOT / "st" / "orage-adapter-id").decode()

    assert text == volume.storage_id
    assert len(text) == 36


def test_the_storage_id_of_automerge_repo_is_adopted(memory: MemoryFileSystem) -> None:
    memory.put(ROOT / "st" / "orage-adapter-id", ADAPTER_ID.encode())

    assert open_memory(memory).storage_id == ADAPTER_ID


def test_a_given_storage_id_is_kept_and_another_one_refused(memory: MemoryFileSystem) -> None:
    open_memory(memory, storage_id="mine").close()

    with pytest.raises(ConfigError, match=r"'other'.*'mine'"):
        open_memory(memory, storage_id="other")

    volume = open_memory(memory)
    assert volume.storage_id == "mine"


def test_another_storage_id_than_automerge_repos_is_refused(memory: MemoryFileSystem) -> None:
    memory.put(ROOT / "st" / "orage-adapter-id", ADAPTER_ID.encode())

    with pytest.raises(ConfigError, match=ADAPTER_ID):
        open_memory(memory, storage_id="other")


@pytest.mark.parametrize("storage_id", ["", "a\nb", "x" * 257])
def test_an_unusable_storage_id_is_refused(memory: MemoryFileSystem, storage_id: str) -> None:
    with pytest.raises(ConfigError, match="storage_id"):
        open_memory(memory, storage_id=storage_id)


def test_an_ephemeral_volume_advertises_nothing_and_may_be_named_later(
    memory: MemoryFileSystem,
) -> None:
    volume = open_memory(memory, ephemeral=True)
    assert volume.storage_id is None
    assert "st/orage-adapter-id" not in memory.tree(ROOT)
    volume.close()

    named = open_memory(memory, storage_id="mine")
    assert named.storage_id == "mine"
    named.close()

    assert open_memory(memory, ephemeral=True).storage_id is None


def test_a_torn_adapter_id_is_reported_and_replaced(memory: MemoryFileSystem) -> None:
    memory.put(ROOT / "st" / "orage-adapter-id", b"")

    volume = open_memory(memory)

    assert [finding.kind for finding in volume.findings.newest()] == ["storage_id"]
    assert memory.read(ROOT / "st" / "orage-adapter-id").decode() == volume.storage_id


def test_an_unknown_layout_is_refused_and_untouched(memory: MemoryFileSystem) -> None:
    open_memory(memory).close()
    path = ROOT / ".amsync" / "cluster.json"
    text = json.dumps(json.loads(memory.read(path)) | {"layout_version": 2}).encode()
    memory.put(path, text)

    with pytest.raises(VolumeError, match="layout_version 2; this server knows 1"):
        open_memory(memory)

    assert memory.read(path) == text


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"layout_version": 1}', b"\xff", b"null"], ids=repr
)
def test_a_damaged_cluster_file_is_refused(memory: MemoryFileSystem, text: bytes) -> None:
    memory.put(ROOT / ".amsync" / "cluster.json", text)

    with pytest.raises(VolumeError, match="damaged"):
        open_memory(memory)


def test_a_used_volume_without_its_cluster_file_is_refused(memory: MemoryFileSystem) -> None:
    memory.put(ROOT / ".amsync" / "wal" / "000001-a" / "00000001.wal", b"")

    with pytest.raises(VolumeError, match="is missing"):
        open_memory(memory)


def test_a_file_as_data_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    with pytest.raises(VolumeError, match="not a directory"):
        Volume.open(tmp_path / "data", files=RealFileSystem())


class ForgetfulNames(MemoryFileSystem):
    """Makes a new file of a name that is taken, as a file system without O_EXCL."""

    def create(self, path: Path) -> WritableFile:
        if path.name.endswith("-test-a") and path.name in self.tree(path.parent):
            self.unlink(path)
        return super().create(path)


def test_a_file_system_without_exclusive_creation_is_refused() -> None:
    with pytest.raises(VolumeError, match="O_EXCL"):
        Volume.open(Path("/data"), files=ForgetfulNames())


def test_unfinished_files_of_a_killed_process_are_cleared(memory: MemoryFileSystem) -> None:
    memory.put(ROOT / ".amsync" / "tmp" / "old-1", b"half")

    open_memory(memory)

    assert not [name for name in memory.tree(ROOT) if name.startswith(".amsync/tmp")]


def test_the_lock_is_given_back_when_opening_fails(memory: MemoryFileSystem) -> None:
    open_memory(memory, storage_id="mine").close()
    with pytest.raises(ConfigError):
        open_memory(memory, storage_id="other")

    open_memory(memory).close()

import errno
from pathlib import Path

import msgpack
import pytest

from amsync.errors import StorageError, StorageFull
from amsync.storage import Position, WalBatch
from amsync.storage.batch import decode_batch, encode_batch
from amsync.storage.durable import DurableFiles
from amsync.storage.wal import MARKER, WalWriter, list_segments, read_segment
from support.memfs import MemoryFileSystem

from .shapes import changes, document, tombstone

WAL = Path("/data/wal")
ONE, TWO = document(1), document(2)


@pytest.fixture
def writer(memory: MemoryFileSystem) -> WalWriter:
    durable = DurableFiles(memory, Path("/data"), Path("/data/tmp"), "owner")
    return WalWriter(memory, durable, WAL / "000001-owner", segment_bytes=1_000)


def batches(memory: MemoryFileSystem) -> list[WalBatch]:
    return [
        batch for path in list_segments(memory, WAL) for batch in read_segment(memory, path).batches
    ]


def test_a_batch_comes_back_as_it_was() -> None:
    batch = WalBatch(
        changes=changes({ONE: [b"a", b""], TWO: [b"b"]}).changes,
        positions={3: Position("e", "7-1", {"g": 9}), 4: Position("e", "0-0")},
        tombstones=tombstone(TWO).tombstones,
    )

    assert decode_batch(encode_batch(batch)) == batch
    assert decode_batch(encode_batch(WalBatch())) == WalBatch()


def test_fields_of_a_newer_writer_are_skipped() -> None:
    fields = msgpack.unpackb(encode_batch(changes({ONE: [b"a"]})))
    fields["later"] = [1, 2]
    fields["changes"][0].append("later")

    assert decode_batch(msgpack.packb(fields)) == changes({ONE: [b"a"]})


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x90", b"\x01", msgpack.packb({"changes": [[1, 1, "../../etc", [b"a"]]]})],
    ids=repr,
)
def test_a_payload_that_is_not_a_batch_is_refused(payload: bytes) -> None:
    with pytest.raises(StorageError, match="not a batch"):
        decode_batch(payload)


def test_records_come_back_in_order_over_segments(
    memory: MemoryFileSystem, writer: WalWriter
) -> None:
    written = [changes({ONE: [b"%d" % number * 300]}) for number in range(9)]

    paths = [writer.append([batch]) for batch in written]

    assert batches(memory) == written
    assert [path.name for path in dict.fromkeys(paths)] == [
        "00000001.wal",
        "00000002.wal",
        "00000003.wal",
    ]


def test_a_group_is_one_write_and_one_fsync(memory: MemoryFileSystem, writer: WalWriter) -> None:
    writer.append([changes({ONE: [b"first"]})])
    memory.log.clear()

    writer.append([changes({ONE: [b"a"]}), changes({TWO: [b"b"]})])

    assert [operation for operation, _ in memory.log] == ["write", "fsync"]
    assert len(batches(memory)) == 3


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_end_is_passed_over(memory: MemoryFileSystem, writer: WalWriter, cut: int) -> None:
    path = writer.append([changes({ONE: [b"a"]})])
    writer.append([changes({TWO: [b"b"]})])
    data = memory.read(path)

    memory.put(path, data[:-cut])
    assert read_segment(memory, path).batches == (changes({ONE: [b"a"]}),)
    assert read_segment(memory, path).fault is None

    memory.put(path, data[:-cut] + bytes(100))
    assert read_segment(memory, path).batches == (changes({ONE: [b"a"]}),)
    assert read_segment(memory, path).fault is None


def test_damage_before_good_records_is_reported_and_they_are_read(
    memory: MemoryFileSystem, writer: WalWriter
) -> None:
    path = writer.append([changes({ONE: [b"aaaaaaaa"]})])
    writer.append([changes({TWO: [b"b"]}), changes({TWO: [b"c"]})])
    data = memory.read(path)

    memory.put(path, data.replace(b"aaaaaaaa", b"aaaaXaaa"))

    segment = read_segment(memory, path)
    assert segment.batches == (changes({TWO: [b"b"]}), changes({TWO: [b"c"]}))
    assert segment.fault is not None
    assert "are not a record" in segment.fault


def test_a_damaged_header_is_reported_and_the_records_are_read(
    memory: MemoryFileSystem, writer: WalWriter
) -> None:
    path = writer.append([changes({ONE: [b"a"]})])
    memory.put(path, b"X" + memory.read(path)[1:])

    segment = read_segment(memory, path)

    assert segment.batches == (changes({ONE: [b"a"]}),)
    assert segment.fault is not None
    assert "header" in segment.fault


def test_a_record_inside_a_clients_change_is_not_taken_for_one(
    memory: MemoryFileSystem, writer: WalWriter
) -> None:
    # A whole segment of another incarnation, as a client might have got hold of one.
    durable = DurableFiles(memory, Path("/data"), Path("/data/tmp"), "owner")
    other = WalWriter(memory, durable, WAL / "000002-other")
    forged = memory.read(other.append([tombstone(ONE)]))
    assert MARKER in forged
    path = writer.append([changes({ONE: [forged + b"end"]})])

    memory.put(path, memory.read(path)[:-2])

    assert read_segment(memory, path).batches == ()
    assert read_segment(memory, path).fault is None


@pytest.mark.parametrize(
    ("operation", "before"),
    [("write", 0), ("fsync", 0), ("create", 0), ("fsync_directory", 0), ("write", 1), ("fsync", 1)],
)
def test_after_a_failure_the_segment_is_never_touched_again(
    memory: MemoryFileSystem, writer: WalWriter, operation: str, before: int
) -> None:
    for _ in range(before):
        writer.append([changes({ONE: [b"a"]})])
    memory.fault = lambda name, _: errno.EIO if name == operation else None

    with pytest.raises(StorageError):
        writer.append([changes({ONE: [b"lost"]})])

    memory.fault = None
    memory.log.clear()
    path = writer.append([changes({TWO: [b"b"]})])
    touched = {path for operation, path in memory.log if operation in ("write", "fsync", "create")}
    assert touched == {path}
    memory.restart()
    assert batches(memory) == [changes({ONE: [b"a"]})] * before + [changes({TWO: [b"b"]})]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_no_files_and_writing_resumes(
    memory: MemoryFileSystem, writer: WalWriter, error: int
) -> None:
    writer.append([changes({ONE: [b"a"]})])
    memory.fault = lambda name, _: error if name == "write" else None

    for _ in range(5):
        with pytest.raises(StorageFull, match="make room"):
            writer.append([changes({ONE: [b"lost"]})])
    assert len(list_segments(memory, WAL)) == 1

    memory.fault = None
    writer.append([changes({TWO: [b"b"]})])
    assert batches(memory) == [changes({ONE: [b"a"]}), changes({TWO: [b"b"]})]

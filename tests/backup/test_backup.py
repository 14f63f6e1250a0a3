"""A backup is whole under its name or not there, and damage in it is seen."""

import gzip
import io
import json
import os
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from amsync.backup import BackupDamaged, Stored, new_backup, open_backup, verify
from amsync.errors import DocumentExists, InvalidDocument
from amsync.ids import DocumentId, generate_document_id
from amsync.worker.engine import NativeCodec, build_document

CODEC = NativeCodec()
FORMS = ("folder", "archive.tar", "archive.tar.gz", "archive.tgz")
ORIGIN = {"version": "1.2.3", "storage_id": None}

Documents = dict[DocumentId, bytes]


def some_documents(count: int = 3) -> Documents:
    return {generate_document_id(): build_document({"number": n}) for n in range(count)}


def make(path: Path, documents: Documents) -> None:
    with new_backup(path, CODEC, ORIGIN) as backup:
        for document_id, saved in documents.items():
            backup.add(document_id, saved)


def left_while_it_is_made(path: Path) -> Path:
    """Begin a backup and interrupt it; returns where it stood."""
    try:
        with new_backup(path, CODEC, ORIGIN) as backup:
            backup.add(*next(iter(some_documents().items())))
            (unfinished,) = path.parent.iterdir()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return unfinished


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def check(path: Path) -> None:
    verify(open_backup(path), CODEC, lambda _done, _total: None)


def files_of(path: Path) -> dict[str, bytes]:
    """Names and content, of either form."""
    if path.is_dir():
        return {each.name: each.read_bytes() for each in path.iterdir()}
    with tarfile.open(path) as tar:
        opened = {each.name: tar.extractfile(each) for each in tar}
        return {name: file.read() for name, file in opened.items() if file}


def put(path: Path, files: dict[str, bytes]) -> None:
    """Make a backup of these files by hand."""
    if path.suffix != ".tar":
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("name", FORMS)
def test_what_was_saved_is_read_back(tmp_path: Path, name: str) -> None:
    documents = some_documents()

    make(tmp_path / name, documents)

    found = open_backup(tmp_path / name)
    check(tmp_path / name)
    assert dict(found.documents()) == documents
    assert found.manifest.origin == ORIGIN
    assert found.manifest.began <= found.manifest.ended
    assert found.manifest.documents == {
        document_id: Stored.of(document_id, saved, CODEC.inspect(saved).heads, 1)
        for document_id, saved in documents.items()
    }
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", FORMS)
def test_a_backup_without_documents_is_one(tmp_path: Path, name: str) -> None:
    make(tmp_path / name, {})

    check(tmp_path / name)
    assert dict(open_backup(tmp_path / name).documents()) == {}


@pytest.mark.parametrize("name", FORMS)
def test_what_could_not_be_saved_is_kept_in_mind(tmp_path: Path, name: str) -> None:
    (lost, _), (document_id, saved) = some_documents(2).items()
    with new_backup(tmp_path / name, CODEC, {}) as backup:
        backup.lacks(lost, "it is broken")
        backup.add(document_id, saved)

    (unsaved,) = open_backup(tmp_path / name).manifest.unsaved

    assert (unsaved.document_id, unsaved.problem) == (lost, "it is broken")


@pytest.mark.parametrize("name", FORMS)
def test_nothing_is_left_of_one_that_fails(tmp_path: Path, name: str) -> None:
    left_while_it_is_made(tmp_path / name)

    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", FORMS)
def test_what_a_killed_run_has_left_is_replaced(tmp_path: Path, name: str) -> None:
    left = left_while_it_is_made(tmp_path / name)
    if left.suffix == ".unfinished":
        left.mkdir()
        (left / "of-another.automerge").write_bytes(b"x")
    else:
        left.write_bytes(b"x" * 100_000)
    documents = some_documents()

    make(tmp_path / name, documents)

    assert dict(open_backup(tmp_path / name).documents()) == documents
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", FORMS)
def test_one_that_is_being_made_is_left_to_who_makes_it(tmp_path: Path, name: str) -> None:
    documents = some_documents()
    with new_backup(tmp_path / name, CODEC, ORIGIN) as backup:
        for document_id, saved in documents.items():
            backup.add(document_id, saved)
            with pytest.raises(DocumentExists, match="being made by another"):
                make(tmp_path / name, some_documents())

    check(tmp_path / name)
    assert dict(open_backup(tmp_path / name).documents()) == documents
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize("name", FORMS)
def test_nothing_is_replaced(tmp_path: Path, name: str) -> None:
    documents = some_documents()
    make(tmp_path / name, documents)

    with pytest.raises(DocumentExists, match="there already"):
        make(tmp_path / name, {})

    assert dict(open_backup(tmp_path / name).documents()) == documents


def test_a_link_is_not_replaced_either(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")

    with pytest.raises(DocumentExists):
        make(tmp_path / "link", {})


@pytest.mark.parametrize("name", FORMS)
def test_a_document_that_does_not_load_is_no_part_of_it(tmp_path: Path, name: str) -> None:
    documents = some_documents()
    broken = bytearray(next(iter(documents.values())))
    broken[20] ^= 1
    with new_backup(tmp_path / name, CODEC, {}) as backup:
        with pytest.raises(InvalidDocument):
            backup.add(generate_document_id(), bytes(broken))
        for document_id, saved in documents.items():
            backup.add(document_id, saved)

    assert dict(open_backup(tmp_path / name).documents()) == documents


def test_a_disk_that_changes_bytes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def write_badly(path: Path, data: bytes) -> int:
        return write(path, data[:-1] if path.suffix == ".automerge" else data)

    monkeypatch.setattr(Path, "write_bytes", write_badly)
    with pytest.raises(BackupDamaged, match="other bytes"):
        make(tmp_path / "folder", some_documents())

    assert names_in(tmp_path) == []


def _without_a_document(files: dict[str, bytes]) -> None:
    del files[next(name for name in files if name.endswith(".automerge"))]


def _with_a_changed_bit(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.endswith(".automerge"))
    files[name] = files[name][:-1] + bytes([files[name][-1] ^ 1])


def _with_a_document_cut(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.endswith(".automerge"))
    files[name] = files[name][:-1]


def _with_a_longer_document(files: dict[str, bytes]) -> None:
    name = next(name for name in files if name.endswith(".automerge"))
    files[name] += b"\0"


def _with_two_exchanged(files: dict[str, bytes]) -> None:
    one, other, *_ = (name for name in files if name.endswith(".automerge"))
    files[one], files[other] = files[other], files[one]


def _edited(edit: Callable[[list[str]], object]) -> Callable[[dict[str, bytes]], None]:
    def apply(files: dict[str, bytes]) -> None:
        lines = files["manifest.jsonl"].decode().splitlines()
        edit(lines)
        files["manifest.jsonl"] = "".join(line + "\n" for line in lines).encode()

    return apply


def _replaced(index: int, **fields: object) -> Callable[[dict[str, bytes]], None]:
    def edit(lines: list[str]) -> None:
        lines[index] = json.dumps({**json.loads(lines[index]), **fields})

    return _edited(edit)


DAMAGE: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "a document is missing": (_without_a_document, "is missing"),
    "a bit is changed": (_with_a_changed_bit, "other bytes"),
    "a document is cut": (_with_a_document_cut, "other bytes"),
    "a document is longer": (_with_a_longer_document, "other bytes"),
    "two are exchanged": (_with_two_exchanged, "other bytes"),
    "the manifest is missing": (lambda files: files.pop("manifest.jsonl"), "no manifest.jsonl"),
    "its end is missing": (_edited(lambda lines: lines.pop()), "cut off"),
    "it is empty": (_edited(lambda lines: lines.clear()), "can't be read"),
    "a line is missing": (_edited(lambda lines: lines.pop(1)), "lacks lines"),
    "a line stands twice": (_edited(lambda lines: lines.insert(1, lines[1])), "twice"),
    "something follows its end": (_edited(lambda lines: lines.append("{}")), "more than"),
    "its format is newer": (_replaced(0, format=2), "format 2; this version knows 1"),
    "a head is another": (_replaced(1, heads=["00" * 32]), "another history"),
    "a count is another": (_replaced(1, changes=2), "another history"),
    "an id is none": (_replaced(1, document_id="../../etc/passwd"), "can't be read"),
    "an id is a number": (_replaced(1, document_id=7), "can't be read"),
    "a hash is none": (_replaced(1, sha256="xyz"), "can't be read"),
    "it is no JSON": (_edited(lambda lines: lines.insert(1, "{")), "can't be read"),
    "it is nested": (_edited(lambda lines: lines.insert(1, "[" * 100_000)), "can't be read"),
    "a line is no object": (_edited(lambda lines: lines.insert(1, "[]")), "no object"),
}


@pytest.mark.parametrize("form", ["folder", "archive.tar"])
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_seen_and_named(tmp_path: Path, what: str, form: str) -> None:
    damage, said = DAMAGE[what]
    make(tmp_path / f"good-{form}", some_documents())
    files = files_of(tmp_path / f"good-{form}")
    put(tmp_path / form, files)
    check(tmp_path / form)  # made by hand, it is good as long as nothing is damaged

    damage(files)
    other = tmp_path / f"other-{form}"
    put(other, files)

    with pytest.raises(BackupDamaged, match=said):
        check(other)


def test_many_problems_are_counted(tmp_path: Path) -> None:
    make(tmp_path / "folder", some_documents(30))
    for each in (tmp_path / "folder").glob("*.automerge"):
        each.unlink()

    with pytest.raises(BackupDamaged, match=r"and 10 more$"):
        check(tmp_path / "folder")


@pytest.mark.parametrize("name", FORMS[1:])
def test_an_archive_that_is_cut_anywhere_is_no_backup(tmp_path: Path, name: str) -> None:
    documents = some_documents()
    make(tmp_path / name, documents)
    whole = (tmp_path / name).read_bytes()
    refused = 0
    for length in range(0, len(whole), len(whole) // 30):
        (tmp_path / name).write_bytes(whole[:length])
        try:
            check(tmp_path / name)
        except BackupDamaged:
            refused += 1
        else:  # only the padding is gone
            assert dict(open_backup(tmp_path / name).documents()) == documents

    assert refused > 10


def _header(name: str, size: int, kind: bytes) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def _file(name: str, content: bytes) -> bytes:
    return _header(name, len(content), tarfile.REGTYPE) + content + b"\0" * (-len(content) % 512)


def _sparse_header(name: str, size: int) -> bytes:
    """Of a file that has this size, and nothing in it."""
    header = bytearray(_header(name, 0, tarfile.GNUTYPE_SPARSE))
    header[386:410] = b"%011o\0" % 0 * 2
    header[483:495] = b"%011o\0" % size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("a document that is nothing but a hole", "is missing"),
        ("a document of a terabyte", "bytes"),
        ("a long header", "has a part of"),
        ("a long name", "has a part of"),
        ("an endless line", "a line of more"),
    ],
)
def test_sizes_that_an_archive_claims_cost_nothing(tmp_path: Path, what: str, said: str) -> None:
    make(tmp_path / "good.tar", some_documents(1))
    files = files_of(tmp_path / "good.tar")
    (name,) = (name for name in files if name.endswith(".automerge"))
    size = 10**12 if what == "a document of a terabyte" else 2**29
    _replaced(1, bytes=size)(files)
    manifest = _file("manifest.jsonl", files["manifest.jsonl"])
    data = {
        "a long header": _header("x", 7 << 30, tarfile.XHDTYPE) + manifest,
        "a long name": _header("x", 7 << 30, tarfile.GNUTYPE_LONGNAME) + manifest,
        "an endless line": _file("manifest.jsonl", b" " * (40 << 20)),
    }.get(what, manifest + _sparse_header(name, 7 << 30))
    with gzip.open(tmp_path / "bad.tar.gz", "wb") as file:
        file.write(data + b"\0" * 1024)

    tracemalloc.start()
    try:
        with pytest.raises(BackupDamaged, match=said):
            check(tmp_path / "bad.tar.gz")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 100 << 20


def test_a_document_beyond_the_bound_is_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amsync.backup.writing.MOST_DOCUMENT_BYTES", 10)
    with (
        new_backup(tmp_path / "out", CODEC, ORIGIN) as backup,
        pytest.raises(InvalidDocument, match="at most 10 bytes"),
    ):
        backup.add(*next(iter(some_documents(1).items())))

    check(tmp_path / "out")


def test_what_is_no_archive_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("hello")

    with pytest.raises(BackupDamaged, match="no backup"):
        check(tmp_path / "text.tar")
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nothing.tar")


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_only_plain_files_are_read(tmp_path: Path, kind: str) -> None:
    make(tmp_path / "folder", some_documents(1))
    (path,) = (tmp_path / "folder").glob("*.automerge")
    path.rename(tmp_path / "outside")
    if kind == "link":
        path.symlink_to(tmp_path / "outside")
    else:
        os.mkfifo(path)

    with pytest.raises(BackupDamaged, match="symbolic link" if kind == "link" else "no file"):
        check(tmp_path / "folder")


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    make(tmp_path / "good.tar", some_documents(2))
    files = files_of(tmp_path / "good.tar")
    names = [name for name in files if name.endswith(".automerge")]
    put(tmp_path / "folder", files)
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        for name in ("manifest.jsonl", names[0]):
            tar.add(tmp_path / "folder" / name, name)
        link = tarfile.TarInfo(names[1])
        link.type, link.linkname = tarfile.LNKTYPE, names[0]
        tar.addfile(link)

    with pytest.raises(BackupDamaged, match="missing"):
        check(tmp_path / "bad.tar")

"""The control folder of a data directory, without its log.

Not here: the log (`log`) and the lock file (`holder`). Nothing in here is followed or trusted:
damage in one file must not hide the others.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from amsync.errors import InvalidDocumentId, VolumeError
from amsync.ids import DocumentId, is_safe_peer_text, parse_document_id
from amsync.storage.check.lookout import Lookout
from amsync.storage.check.problems import Problem
from amsync.storage.check.tree import Parts, What, shown
from amsync.storage.importer import SUFFIX
from amsync.storage.volume import (
    ADAPTER_ID,
    CONTROL_DIRECTORY,
    LAYOUT_VERSION,
    Cluster,
    parse_cluster,
)

CONTROL = (CONTROL_DIRECTORY,)
SMALL_BYTES = 1024 * 1024
"""More than any file of the control folder has that is read here."""

_FILES = ("lock", "cluster.json")
_FOLDERS = ("shards", "wal", "members", "tombstones", "quarantine", "imported", "graph", "tmp")


@dataclass(slots=True)
class Control:
    """What the rest of a check needs of the control folder.

    Attributes:
        is_known: Its layout is ours; else nothing more in it may be interpreted.
        has_log: There is a folder of the log.
        deleted: Documents with a tombstone.
    """

    is_known: bool = True
    has_log: bool = False
    deleted: set[DocumentId] = field(default_factory=set)

    def check(self, look: Lookout, flat_names: Collection[str]) -> Iterator[Problem]:
        """Look at everything in it; `flat_names` are the flat files that are there."""
        there: set[str] = set()
        for each in look.entries(CONTROL):
            parts = (*CONTROL, each.name)
            if each.name not in _FILES + _FOLDERS:
                look.note("foreign_control", parts, "not a part of the control folder")
            elif (each.what is What.FOLDER) != (each.name in _FOLDERS):
                wanted = "a folder" if each.name in _FOLDERS else "a file"
                look.note("in_the_way", parts, f"{wanted} should be here")
            else:
                there.add(each.name)
        cluster = self._cluster(look, there)
        yield from look.drain()
        if not self.is_known:
            return
        self.has_log = "wal" in there
        _adapter_id(look, cluster)
        if "tombstones" in there:
            self._tombstones(look)
        if "shards" in there:
            _shards(look)
        if "quarantine" in there:
            yield from _quarantine(look)
        if "imported" in there:
            _imported(look, flat_names)
        if "tmp" in there and (left := look.entries((*CONTROL, "tmp"))):
            look.note("unfinished_files", (*CONTROL, "tmp"), f"{len(left):,} unfinished files")
        yield from look.drain()

    def _cluster(self, look: Lookout, there: set[str]) -> Cluster | None:
        parts = (*CONTROL, "cluster.json")
        if "cluster.json" not in there:
            used = [name for name in ("wal", "shards") if name in there]
            if any(look.entries((*CONTROL, name)) for name in used):
                look.note("missing_cluster_file", parts, "there is none, but a log or shards")
            return None
        text = look.read(parts, SMALL_BYTES)
        if text is None:
            return None
        try:
            version = json.loads(text)["layout_version"]
        except (ValueError, TypeError, KeyError, RecursionError):
            version = LAYOUT_VERSION  # damaged: what follows says so
        if version != LAYOUT_VERSION:
            self.is_known = False
            detail = f"layout_version is {str(version)[:50]}; this version knows {LAYOUT_VERSION}"
            look.note("unknown_layout", parts, detail)
            return None
        try:
            return parse_cluster(Path(*parts), text)
        except (VolumeError, RecursionError) as error:
            cause = error.__cause__ or error
            look.note("bad_cluster_file", parts, f"damaged: {type(cause).__name__}: {cause}")
            return None

    def _tombstones(self, look: Lookout) -> None:
        for each in look.entries((*CONTROL, "tombstones")):
            document_id = canonical(each.name)
            if document_id is None or each.what is not What.FILE:
                parts = (*CONTROL, "tombstones", each.name)
                look.note("foreign_control", parts, "no tombstone: its name is no document id")
            else:
                self.deleted.add(document_id)


def canonical(name: str) -> DocumentId | None:
    """A name as document id, if it is one in its canonical spelling."""
    try:
        document_id = parse_document_id(name)
    except InvalidDocumentId:
        return None
    return document_id if document_id == name else None


def _adapter_id(look: Lookout, cluster: Cluster | None) -> None:
    parts = ADAPTER_ID.parts
    data = look.read(parts, SMALL_BYTES) if look.tree.has_file(parts) else None
    if data is None:
        return
    text = data.decode("utf-8", "replace")
    if not is_safe_peer_text(text) or text.encode() != data:
        look.note("bad_adapter_id", parts, f"{len(data):,} bytes")
    elif cluster is not None and cluster.storage_id != text:
        detail = f"it says {text}, cluster.json {cluster.storage_id}"
        look.note("storage_id_differs", parts, detail)


def _shards(look: Lookout) -> None:
    for shard in look.entries((*CONTROL, "shards")):
        folder = (*CONTROL, "shards", shard.name)
        if shard.what is not What.FOLDER or not _is_number(shard.name):
            look.note("foreign_control", folder, "no folder of a shard")
            continue
        for each in look.entries(folder):
            parts = (*folder, each.name)
            is_mark = each.name == "mark"
            if each.what is not What.FILE or not (is_mark or _is_number(each.name)):
                look.note("foreign_control", parts, "neither a mark nor an epoch")
            elif is_mark and (text := look.read(parts, SMALL_BYTES)) is not None:
                _mark(look, parts, text)


def _mark(look: Lookout, parts: Parts, text: bytes) -> None:
    try:
        fields = json.loads(text)
        for name in ("cluster_epoch", "entry", "sequences"):
            fields[name]
        {str(gateway): int(number) for gateway, number in fields["sequences"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        look.note("bad_mark", parts, f"no checkpoint mark: {type(error).__name__}")


def _quarantine(look: Lookout) -> Iterator[Problem]:
    folder = (*CONTROL, "quarantine")
    entries = look.entries(folder)
    names = {each.name for each in entries}
    for each in entries:
        parts = (*folder, each.name)
        base = each.name.removesuffix(".json")
        if each.what is not What.FILE:
            look.note("foreign_control", parts, "no quarantined file")
        elif base != each.name and base in names:
            continue  # the note of a file
        elif each.name + ".json" in names:
            _quarantined(look, parts, look.read((*folder, each.name + ".json"), SMALL_BYTES))
        elif base != each.name:
            look.note("note_without_file", parts, "the note of a file that is not here")
        else:
            look.note("quarantined_without_note", parts, "a file without its note")
        yield from look.drain()


def _quarantined(look: Lookout, parts: Parts, text: bytes | None) -> None:
    try:
        note = json.loads(text or b"")
        origin, why = str(note["path"]), str(note["why"])
    except (ValueError, TypeError, KeyError, RecursionError):
        look.note("quarantined_without_note", parts, "its note can't be read")
        return
    look.note("quarantined", parts, f"from {origin}: {why}", _document(tuple(origin.split("/"))))


def _document(origin: Parts) -> DocumentId | None:
    if len(origin) == 1:
        return canonical(origin[0].removesuffix(SUFFIX))
    return canonical(origin[0] + origin[1])


def _imported(look: Lookout, flat_names: Collection[str]) -> None:
    for each in look.entries((*CONTROL, "imported")):
        parts = (*CONTROL, "imported", each.name)
        if each.what is not What.FILE or not each.name.endswith(SUFFIX):
            look.note("foreign_control", parts, "no marker of a flat file")
            continue
        if each.name not in flat_names:
            look.note("marker_without_file", parts, f"{shown((each.name,))} is not there")
        text = look.read(parts, SMALL_BYTES)
        try:
            if text is not None:
                json.loads(text)
        except (ValueError, RecursionError):
            look.note("bad_marker", parts, "no marker that can be read")


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()

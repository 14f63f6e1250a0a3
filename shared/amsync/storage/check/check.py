"""The walk over a data directory: finds every document and everything that is none.

Not here: what is wrong with a document (`documents`), the log (`log`), the control folder
(`control`). Invariants: nothing is changed and no lock taken; at most one document and the log
are in memory, beside the names in one folder; the log is read before the folders, because on a
live directory changes move from it into them.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from amsync.errors import InvalidDocumentId
from amsync.ids import DocumentId, parse_document_id
from amsync.storage.check.control import CONTROL, SMALL_BYTES, Control, canonical
from amsync.storage.check.documents import DOCUMENT_BYTES, DocumentCheck, Examined, Place
from amsync.storage.check.holder import Holder, holder_of
from amsync.storage.check.log import LOG_BYTES, WAL, Log
from amsync.storage.check.lookout import Lookout
from amsync.storage.check.problems import Problem, Severity
from amsync.storage.check.tree import Name, Parts, Tree, What, shown
from amsync.storage.codec import ChunkCodec
from amsync.storage.importer import SUFFIX
from amsync.storage.volume import ADAPTER_ID, CONTROL_DIRECTORY

R_SYNC_STATES = ".sync_states"
"""Where the R server keeps what it knows of its peers; left alone."""

Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Totals:
    """Counts over a whole directory.

    Attributes:
        documents: With a file or changes in the log; without deleted ones.
        changes: Different changes in them, without those that wait for others.
        file_bytes: Of the files in their folders, and of flat files.
        wal_bytes: Of the log's segments.
    """

    documents: int = 0
    changes: int = 0
    file_bytes: int = 0
    wal_bytes: int = 0
    errors: int = 0
    warnings: int = 0
    notes: int = 0

    def count(self, problem: Problem) -> None:
        """Count a finding."""
        match problem.severity:
            case Severity.ERROR:
                self.errors += 1
            case Severity.WARNING:
                self.warnings += 1
            case Severity.NOTE:
                self.notes += 1


class Check:
    """One look at a data directory.

    Args of the constructor:
        root: An existing directory; a symbolic link to one is followed.
        codec: The engine.
        progress: Called with (steps done, steps in all).
        document_bytes: See `DOCUMENT_BYTES`.
        log_bytes: See `LOG_BYTES`.

    Attributes:
        holder: Who seems to hold the directory; known after the first finding or the end.
        totals: Complete when `run` has come to its end.
    """

    def __init__(
        self,
        root: Path,
        codec: ChunkCodec,
        *,
        progress: Progress | None = None,
        document_bytes: int = DOCUMENT_BYTES,
        log_bytes: int = LOG_BYTES,
    ) -> None:
        self.holder: Holder | None = None
        self.totals = Totals()
        self._root, self._codec = root, codec
        self._progress = progress or (lambda _done, _total: None)
        self._document_bytes, self._log_bytes = document_bytes, log_bytes
        self._control, self._log = Control(), Log()
        self._flat_files: defaultdict[DocumentId, list[Parts]] = defaultdict(list)
        self._in_log_only = 0

    def run(self) -> Iterator[Problem]:
        """Find everything, once.

        Raises:
            OSError: The root can't be opened.
        """
        with closing(Tree(self._root)) as tree:
            self._look = Lookout(tree)
            self._documents = DocumentCheck(tree, self._codec, self._document_bytes)
            for problem in self._walk():
                self.totals.count(problem)
                yield problem

    def _walk(self) -> Iterator[Problem]:
        look = self._look
        names = look.entries(())
        flat_names = {each.name for each in names if _is_flat_file(each)}
        if Name(CONTROL_DIRECTORY, What.FOLDER) in names:
            yield from self._control_folder(flat_names)
        folders: defaultdict[str, list[str]] = defaultdict(list)
        for each in names:
            if each.what is What.FOLDER and len(each.name) == 2:
                folders[each.name.casefold()].append(each.name)
            else:
                self._note_name(each)
            yield from look.drain()
        total = len(folders) + len({*self._flat_files, *self._log.chunks})
        for done, key in enumerate(sorted(folders)):
            self._progress(done, total)
            yield from self._folders(folders[key])
        for done, document_id in enumerate(self._without_folder(), len(folders)):
            self._progress(done, total)
            yield from self._document(document_id, None)
        if self._in_log_only:
            look.note("wal_only", WAL, f"{self._in_log_only:,} documents are only in the log")
        yield from look.drain()
        self._progress(total, total)

    def _control_folder(self, flat_names: Collection[str]) -> Iterator[Problem]:
        if any(each.name == "lock" for each in Lookout(self._look.tree).entries(CONTROL)):
            quiet = Lookout(self._look.tree)
            self.holder = holder_of(quiet.read((*CONTROL, "lock"), SMALL_BYTES) or b"")
        yield from self._control.check(Lookout(self._look.tree), flat_names)
        if self._control.has_log:
            yield from self._log.read(Lookout(self._look.tree), self._log_bytes)
        self.totals.wal_bytes = self._log.file_bytes

    def _note_name(self, each: Name) -> None:
        """Take in a name of the root that is no folder of documents."""
        parts = (each.name,)
        if each.what is What.FOLDER:
            if each.name not in (CONTROL_DIRECTORY, R_SYNC_STATES):
                self._look.note("foreign_name", parts, "no folder of documents")
        elif each.name == CONTROL_DIRECTORY or len(each.name) == 2:
            self._look.note("in_the_way", parts, "a folder should be here")
        elif not _is_flat_file(each):
            self._look.note("foreign_file", parts, "a file among the documents")
        else:
            try:
                document_id = parse_document_id(each.name.removesuffix(SUFFIX))
            except InvalidDocumentId as error:
                self._look.note("foreign_flat_file", parts, str(error))
            else:
                self._flat_files[document_id].append(parts)

    def _folders(self, prefixes: Sequence[str]) -> Iterator[Problem]:
        """Check the folders whose names have these first letters, equal but for their case."""
        alike: defaultdict[str, list[Parts]] = defaultdict(list)
        for prefix in prefixes:
            for each in self._look.entries((prefix,)):
                folder = (prefix, each.name)
                if folder == ADAPTER_ID.parts:
                    continue
                document_id = canonical(prefix + each.name)
                if each.what is not What.FOLDER:
                    kind = "foreign_file" if document_id is None else "in_the_way"
                    self._look.note(kind, folder, "a file among the documents", document_id)
                elif document_id is not None:
                    yield from self._document(document_id, folder)
                elif self._documents.has_chunk_folders(folder):
                    self._unreachable(folder)
                else:
                    self._look.note("foreign_name", folder, "a folder among the documents")
                    continue
                alike[(prefix + each.name).casefold()].append(folder)
                yield from self._look.drain()
        for places in alike.values():
            if len(places) > 1:
                others = ", ".join(shown(place) for place in places[1:])
                self._look.note("case_collision", places[0], f"there is also {others}")
        yield from self._look.drain()

    def _unreachable(self, folder: Parts) -> None:
        # Damage in it is not named one by one: first somebody has to say what it is.
        found = self._documents.examine(Place(None, folder))
        detail = f"{found.change_count:,} changes in {found.file_count:,} files; "
        real = _meant_id("".join(folder))
        if real is None:
            detail += "the name is not an id that was ever given out"
        else:
            detail += f"the id is {real}, so the folder should be {real[:2]}/{real[2:]}"
        self._look.note("unreachable_document", folder, detail, real)

    def _document(self, document_id: DocumentId, folder: Parts | None) -> Iterator[Problem]:
        place = Place(
            document_id,
            folder,
            tuple(self._flat_files.pop(document_id, ())),
            self._log.chunks.pop(document_id, ()),
            # Its folder may be where we could not look.
            is_partial=not self._log.is_whole or (folder is None and self._look.is_blind),
        )
        if document_id in self._control.deleted or document_id in self._log.deleted:
            yield from self._deleted(place)
            return
        found = self._documents.examine(place)
        yield from found.problems
        if not found.file_count and not place.chunks:
            return  # automerge-repo leaves the empty folders of documents that it removes
        self._add(found)
        if place.chunks and not found.file_count:
            self._in_log_only += 1

    def _add(self, found: Examined) -> None:
        self.totals.documents += 1
        self.totals.changes += found.change_count
        self.totals.file_bytes += found.file_bytes

    def _deleted(self, place: Place) -> Iterator[Problem]:
        count = self._documents.file_count(place)
        if count:
            parts = place.folder if place.folder and count > len(place.flat_files) else None
            where = parts or place.flat_files[0]
            detail = f"{count:,} files of a deleted document"
            self._look.note("deleted_with_files", where, detail, place.document_id)
        yield from self._look.drain()

    def _without_folder(self) -> list[DocumentId]:
        """The documents that are only in the log or in flat files; call it after all others."""
        return sorted({*self._log.chunks, *self._flat_files})


def _is_flat_file(each: Name) -> bool:
    return each.what is What.FILE and each.name.endswith(SUFFIX) and each.name != SUFFIX


def _meant_id(name: str) -> DocumentId | None:
    """The id that a folder's name stands for, if it is spelled differently.

    On a file system that ignores case the first two letters are those of another document that
    was there before.
    """
    for first in product(*((letter.lower(), letter.upper()) for letter in name[:2])):
        try:
            return parse_document_id("".join(first) + name[2:])
        except InvalidDocumentId:
            continue
    return None

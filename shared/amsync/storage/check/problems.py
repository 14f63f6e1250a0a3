"""What a check of a data directory can find: every kind, how bad it is, and what to do.

Not here: how it is found. The names of the kinds are part of the command's interface and are
listed in docs/tools.md (test_every_kind_is_documented).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from amsync.ids import DocumentId


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Data is damaged, missing or out of reach, or could not be looked at."""
    WARNING = "warning"
    """Nothing is lost by it, but somebody should look."""
    NOTE = "note"
    """Normal, for instance after a kill -9; here for the sake of completeness."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding.

    Attributes:
        severity: Of all findings of the kind.
        advice: Sentences for a person: what it means and what to do.
    """

    severity: Severity
    advice: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding.

    Attributes:
        kind: A key of `KINDS`.
        path: Relative to the data directory, with `/`; bytes that are not UTF-8 as `\\xff`.
        detail: What was found there, without document bytes.
        document_id: The document that it is about, if known.
    """

    kind: str
    path: str
    detail: str
    document_id: DocumentId | None = None

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind].severity

    @property
    def advice(self) -> str:
        """What it means and what to do."""
        return KINDS[self.kind].advice


def _error(advice: str) -> Kind:
    return Kind(Severity.ERROR, advice)


def _warning(advice: str) -> Kind:
    return Kind(Severity.WARNING, advice)


def _note(advice: str) -> Kind:
    return Kind(Severity.NOTE, advice)


KINDS: Mapping[str, Kind] = {
    # Torn: not what was once written.
    "torn_file": _error(
        "The file is cut or damaged. amsync keeps the good changes in it and puts the file into"
        " quarantine when the document is next opened; automerge-repo may lose much more."
        " Bring the file back from a backup, or let a client that has the document connect."
    ),
    "conflicting_file": _error(
        "The file is whole but contradicts other files of the document. amsync puts it into"
        " quarantine when the document is next opened. Find out which program wrote it."
    ),
    "empty_file": _note("Harmless: a crash of another program leaves such files. It may go."),
    "torn_flat_file": _error(
        "The file is cut, damaged or no saved document, so it is not taken in. Put a good copy in"
        " its place, or move it away."
    ),
    "bad_wal_record": _error(
        "The log is damaged in the middle: records after the damage are good, so changes that"
        " were acknowledged are missing. amsync takes in the good records and puts the file into"
        " quarantine. Let the clients of the time connect again, and look at the disk."
    ),
    "bad_wal_chunk": _error(
        "A change in the log is not whole although its record is. amsync takes in the others;"
        " this is a defect of amsync or of the machine's memory."
    ),
    "torn_wal_end": _note(
        "Normal after a kill -9 or while a server writes: what is incomplete was never"
        " acknowledged. It goes with the next start or `amsync checkpoint`."
    ),
    # Foreign: not from amsync or automerge-repo, or from another version.
    "foreign_name": _warning(
        "No document id, so amsync passes it over. It may be data of an application of"
        " automerge-repo; otherwise move it away."
    ),
    "foreign_file": _warning("amsync passes it over. Move it away if it is not yours."),
    "not_a_chunk": _warning(
        "It stands where only changes may stand. amsync puts it into quarantine when the"
        " document is next opened, but automerge-repo may fail to load the document. Move it away."
    ),
    "foreign_flat_file": _warning(
        "It ends like a file of the R server but its name is no document id, so it is not taken"
        " in. Rename it, or take it in with `amsync doc import`."
    ),
    "foreign_control": _warning(
        "amsync does not know it and leaves it alone. A newer version may have made it;"
        " otherwise move it away."
    ),
    "in_the_way": _error(
        "It is a file where amsync needs a folder, or the reverse, so reading or saving fails."
        " Move it away."
    ),
    "symlink": _warning(
        "Not followed and not examined. A server follows it, also out of the data directory; put"
        " the real thing in its place."
    ),
    "special_file": _error(
        "Neither a file nor a folder; opening it may stop a server. Move it away."
    ),
    "unreadable": _error(
        "It could not be read, so nothing is known of it. Run the check as the user of the"
        " server; if it fails then too, look at the permissions and the disk."
    ),
    "too_large": _error(
        "It was not examined, to bound the memory of the check. Nothing that amsync writes is so"
        " large; move it away if it is not yours."
    ),
    "unknown_layout": _error(
        "Another version of amsync wrote this directory; the log and the control folder were not"
        " examined. Use that version."
    ),
    "bad_cluster_file": _error(
        "The directory's identity is damaged and no server will open it. Bring the file back from"
        " a backup; with no log left (`wal` empty) the whole `.amsync` folder may be moved away."
    ),
    "missing_cluster_file": _error(
        "The directory was used but its identity is missing, and no server will open it. Bring"
        " the file back from a backup."
    ),
    "bad_mark": _warning("It counts as none: messages are taken twice, which is harmless."),
    "storage_id_differs": _warning(
        "amsync uses that of cluster.json, automerge-repo the other; clients then take them for"
        " two servers. Make them equal while no server runs."
    ),
    "bad_adapter_id": _warning("It is no text of a storage id; amsync writes a new one."),
    # Orphaned: without what it belongs to.
    "waiting_changes": _error(
        "They are not part of the document: changes that they build on are not stored here."
        " Bring the missing files back from a backup (look into the quarantine first), or let a"
        " client that has the document connect."
    ),
    "unfinished_files": _note(
        "What a killed process had not finished, or a server is writing now. They go with the"
        " next start."
    ),
    "quarantined": _warning(
        "amsync put it aside. When you have what you need from it, remove it with its note."
    ),
    "quarantined_without_note": _warning(
        "Nobody knows where it comes from. When you have what you need from it, remove it."
    ),
    "note_without_file": _note("Left by a kill -9 in the middle; remove it."),
    "marker_without_file": _note("The file that was taken in is gone. Harmless."),
    "bad_marker": _note("The file that it stands for is taken in once more. Harmless."),
    "deleted_with_files": _note(
        "The document was deleted and stays deleted. Files in its folder go with the next start;"
        " a flat file stays and is passed over."
    ),
    # Unreachable: nobody can ask for it.
    "unreachable_document": _error(
        "No client can ever ask for it, because the name is not an id with a right checksum."
        " Rename the folder, or save its files elsewhere."
    ),
    "case_collision": _warning(
        "The names differ only in upper and lower case. On macOS or Windows they become one"
        " folder; do not copy the directory there."
    ),
    "unloadable_document": _error(
        "Clients are told that the document is unavailable. Bring its files back from a backup,"
        " or let a client that has the document connect."
    ),
    "wal_only": _note(
        "Normal while a server runs and after a kill -9. Other programs don't see them until"
        " the server is stopped or `amsync checkpoint` brings them out."
    ),
}

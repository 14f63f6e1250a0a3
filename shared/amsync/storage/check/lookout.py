"""Reading a tree and noting what can't be read; shared by all parts of a check.

Not here: what the names should be. What vanishes in the middle is no finding, as a server may be
at work: a folder that is gone has nothing in it, and for a file see `has_vanished`.
"""

from collections.abc import Iterator

from amsync.ids import DocumentId
from amsync.storage.check.problems import Problem
from amsync.storage.check.tree import Name, Parts, TooLarge, Tree, What, shown


class Lookout:
    """A tree and what was found in it.

    Attributes:
        tree: What is read.
        is_blind: Something could not be looked at, so what seems missing may be there.
        has_vanished: A file was gone when it was read; what was in it may be in another one now.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._found: list[Problem] = []
        self.is_blind = False
        self.has_vanished = False

    def note(
        self, kind: str, parts: Parts, detail: str, document_id: DocumentId | None = None
    ) -> None:
        """Add a finding; the detail may hold text that was read, whatever is in it."""
        detail = detail.encode("utf-8", "backslashreplace").decode()
        self._found.append(Problem(kind, shown(parts), detail, document_id))

    def drain(self) -> Iterator[Problem]:
        """Hand the findings out, each once."""
        found, self._found = self._found, []
        yield from found

    def entries(self, folder: Parts, document_id: DocumentId | None = None) -> list[Name]:
        """List the files and folders in a folder; everything else is a finding."""
        try:
            names = self.tree.list(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._blind("unreadable", folder, error.strerror or str(error), document_id)
            return []
        plain: list[Name] = []
        for each in names:
            if each.what is What.SYMLINK:
                self._blind("symlink", (*folder, each.name), "a symbolic link", document_id)
            elif each.what is What.SPECIAL:
                detail = "a pipe, a socket or a device"
                self._blind("special_file", (*folder, each.name), detail, document_id)
            else:
                plain.append(each)
        return plain

    def read(
        self, file: Parts, limit_bytes: int, document_id: DocumentId | None = None
    ) -> bytes | None:
        """Read a whole file; None if it is gone, can't be read, or has more bytes than allowed."""
        try:
            return self.tree.read(file, limit_bytes)
        except (FileNotFoundError, NotADirectoryError):
            self.has_vanished = True
        except TooLarge as error:
            detail = f"{error.args[0]:,} bytes or more; {limit_bytes:,} could be held"
            self._blind("too_large", file, detail, document_id)
        except OSError as error:
            self._blind("unreadable", file, error.strerror or str(error), document_id)
        return None

    def _blind(self, kind: str, parts: Parts, detail: str, document_id: DocumentId | None) -> None:
        self.is_blind = True
        self.note(kind, parts, detail, document_id)

"""Backups: a folder or an archive of saved documents, and a manifest of what belongs to it.

A backup is whole under its final name, or not there. Not here: where documents come from and go
to (`amsync.cli`).
"""

from amsync.backup.manifest import Manifest, Stored, Unsaved
from amsync.backup.reading import Backup, BackupDamaged, open_backup, verify
from amsync.backup.writing import BackupWriter, new_backup

__all__ = [
    "Backup",
    "BackupDamaged",
    "BackupWriter",
    "Manifest",
    "Stored",
    "Unsaved",
    "new_backup",
    "open_backup",
    "verify",
]

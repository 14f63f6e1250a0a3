"""Invariant: every fsync in the code of storage is needed; without it some test here fails.

The calls are found in the sources. One after the other is taken out of the running code, and the
scenarios, which all pass as the code is, must notice.
"""

import ast
import errno
import os
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FunctionType
from typing import Any

import pytest

import amsync.storage
from amsync.errors import VolumeError
from amsync.storage.files import RealFileSystem
from support.fakecodec import make_chunk
from support.memfs import KEEP_EVERYTHING, KEEP_NOTHING, MemoryFileSystem

from . import test_crash
from .conftest import ROOT
from .shapes import bodies, document
from .workers import DOCUMENTS, SHARDS, Workers

SOURCES = Path(amsync.storage.__file__).parent


class Site:
    """One call of something called fsync.

    Attributes:
        module: Its module's name, without the package.
        function: Qualified name of the function that makes the call.
        name: What tells it from others in a list.
    """

    def __init__(self, module: str, function: str, number: int) -> None:
        self.module, self.function, self.number = module, function, number
        self.name = f"{module}.{function}:{number}"


class _Calls(ast.NodeTransformer):
    """Finds calls of fsyncs, and replaces the one that is asked for by None."""

    def __init__(self, taken_out: tuple[str, int] | None = None) -> None:
        self.found: list[tuple[str, int]] = []
        self._taken_out = taken_out
        self._path: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node, node.name)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._inside(node, node.name)

    def _inside(self, node: ast.ClassDef | ast.FunctionDef, name: str) -> ast.AST:
        self._path.append(name)
        self.generic_visit(node)
        self._path.pop()
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if "fsync" not in called:
            return node
        function = ".".join(self._path)
        site = (function, sum(known == function for known, _ in self.found) + 1)
        self.found.append(site)
        return ast.copy_location(ast.Constant(None), node) if site == self._taken_out else node


def sites() -> list[Site]:
    found = []
    for path in sorted(SOURCES.glob("*.py")):
        calls = _Calls()
        calls.visit(ast.parse(path.read_text()))
        found += [Site(path.stem, function, number) for function, number in calls.found]
    return found


def code_without(site: Site) -> CodeType:
    path = SOURCES / f"{site.module}.py"
    calls = _Calls((site.function, site.number))
    tree = ast.fix_missing_locations(calls.visit(ast.parse(path.read_text())))
    wanted = [
        code
        for code in _codes(compile(tree, str(path), "exec"))
        if code.co_qualname == site.function
    ]
    (code,) = wanted
    return code


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


def function_of(site: Site) -> FunctionType:
    found: object = import_module(f"amsync.storage.{site.module}")
    for name in site.function.split("."):
        found = vars(found)[name]
    found = found.__func__ if isinstance(found, staticmethod) else found
    found = getattr(found, "__wrapped__", found)
    assert isinstance(found, FunctionType)
    return found


# -- scenarios; each raises AssertionError when something is not durable that should be


def power_fails_at_every_boundary() -> None:
    test_crash.test_every_acknowledged_chunk_survives_a_crash_at_any_boundary(
        lambda _: KEEP_NOTHING
    )


def a_killed_process_and_then_a_power_failure() -> None:
    test_crash.test_a_killed_process_followed_by_a_power_loss_loses_nothing()


def an_epoch_is_claimed_before_the_power_fails() -> None:
    files = test_crash.new_machine()
    assert test_crash.open_memory(files).claim_shard(3) == 1
    files.restart(KEEP_EVERYTHING)
    assert test_crash.open_memory(files).claim_shard(3) == 2
    files.restart(KEEP_NOTHING)
    assert test_crash.open_memory(files).claim_shard(3) == 3


def a_new_data_directory_outlives_a_power_failure() -> None:
    files = MemoryFileSystem()
    test_crash.open_memory(files)
    files.restart(KEEP_NOTHING)
    assert files.list_directory(ROOT)


def what_was_deleted_stays_away_after_a_power_failure() -> None:
    files = test_crash.new_machine()
    document_id = document(1)
    folder = ROOT / document_id[:2] / document_id[2:] / "snapshot"
    files.put(folder / "secret", make_chunk(b"secret"))
    files.put(folder / "of somebody else" / "file", b"")  # so that the folder itself stays
    store = test_crash.open_memory(files)
    store.delete(document_id)
    store.checkpoint()
    files.restart(KEEP_NOTHING)
    assert list(files.tree(folder)) == ["of somebody else/file"]


def the_self_test_finds_a_file_system_without_fsync() -> None:
    for operation, is_tried in (
        ("fsync", lambda path: "-test-" in path.name),
        ("fsync_directory", lambda path: path.name == "tmp"),
    ):
        files = test_crash.new_machine()

        def fault(
            called: str, path: Path, is_broken: str = operation, tried: Any = is_tried
        ) -> Any:
            return errno.EINVAL if called == is_broken and tried(path) else None

        files.fault = fault
        try:
            test_crash.open_memory(files)
        except VolumeError:
            continue
        raise AssertionError(f"a file system without {operation} was taken")


def real_files_are_given_to_the_kernel() -> None:
    """What memory can't show: that the port's own methods come to an fsync of the right file."""
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    def was_synced(path: Path) -> bool:
        taken, synced[:] = list(synced), []
        return taken == [path.stat().st_ino]

    files = RealFileSystem()
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as temporary:
        folder = Path(temporary)
        patch.setattr(os, "fsync", fsync)
        file = files.create(folder / "a")
        file.write(b"a")
        file.fsync()
        file.close()
        assert was_synced(folder / "a")
        files.fsync_file(folder / "a")
        assert was_synced(folder / "a")
        files.fsync_directory(folder)
        assert was_synced(folder)
        lock = files.lock(folder / "lock")
        lock.write(b"record")
        lock.release()
        assert was_synced(folder / "lock")


def what_a_worker_shows_of_a_killed_one_outlives_a_power_failure() -> None:
    for operations in range(8):
        workers = Workers()
        workers.open("a")
        workers.open("b")
        workers.take_over("a", list(range(SHARDS)))
        workers.doom("a", operations)
        for _ in range(2):
            workers.commit(DOCUMENTS[0])
        workers.take_over("b", list(range(SHARDS)))
        workers.acknowledged[DOCUMENTS[0]] = bodies(workers.alive["b"], DOCUMENTS[0])
        workers.power_fails(KEEP_NOTHING)
        workers.check_alone()


SCENARIOS: list[Callable[[], None]] = [
    real_files_are_given_to_the_kernel,
    the_self_test_finds_a_file_system_without_fsync,
    an_epoch_is_claimed_before_the_power_fails,
    a_new_data_directory_outlives_a_power_failure,
    what_was_deleted_stays_away_after_a_power_failure,
    power_fails_at_every_boundary,
    what_a_worker_shows_of_a_killed_one_outlives_a_power_failure,
    a_killed_process_and_then_a_power_failure,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_code_as_it_is_passes(scenario: Callable[[], None]) -> None:
    scenario()


@pytest.mark.parametrize("site", sites(), ids=lambda site: site.name)
def test_an_fsync_that_is_taken_out_is_missed(site: Site) -> None:
    code, function = code_without(site), function_of(site)
    real = function.__code__
    function.__code__ = code
    try:
        for scenario in SCENARIOS:
            try:
                scenario()
            except Exception:
                return
    finally:
        function.__code__ = real
    pytest.fail(f"nothing notices that {site.name} is not called")


def test_the_calls_are_found() -> None:
    assert len(sites()) >= 12

"""Replays the corpora and a little more; the fuzzers themselves run in `make test-all`."""

import importlib.util
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from support.program import run_to_end

from . import fuzz_codec, fuzz_document, fuzz_operations, fuzz_session, fuzz_sync

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": fuzz_codec.one_input,
    "session": fuzz_session.one_input,
    "document": fuzz_document.one_input,
}
SECONDS = 60


def files_of(target: str) -> list[Path]:
    return sorted((CORPUS / target).iterdir())


@pytest.mark.parametrize(
    ("target", "file"),
    [(target, file) for target in TARGETS for file in files_of(target)],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_corpus(target: str, file: Path) -> None:
    TARGETS[target](file.read_bytes())


@pytest.mark.parametrize("target", ["codec", "session"])
def test_flipped_and_cut_inputs(target: str) -> None:
    chance = random.Random(1)
    seeds = [file.read_bytes() for file in files_of(target)]
    for _ in range(3000):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(data) + 1)
            data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        TARGETS[target](bytes(data))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_sync_messages(seed: int) -> None:
    chance = random.Random(seed)
    corpus = [file.read_bytes() for file in files_of("document")]
    for _ in range(700):
        fuzz_document.fuzz(corpus, chance)


def test_worlds_of_any_size() -> None:
    for seed in range(60):
        fuzz_sync.one_world(seed)


@pytest.mark.parametrize("part", range(4))
def test_worlds_of_operations(part: int) -> None:
    worlds = fuzz_operations.ENOUGH_WORLDS
    tally = Counter[str]()
    for seed in range(part * worlds, (part + 1) * worlds):
        tally += fuzz_operations.one_world(seed)
    fuzz_operations.check_enough_was_taken(tally)


def test_corpus_is_small() -> None:
    """It lies in the repository; what a fuzzer finds is minimized before it is added."""
    sizes = [file.stat().st_size for target in TARGETS for file in files_of(target)]
    assert max(sizes) < 64 * 1024
    assert sum(sizes) < 256 * 1024


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("target", ["codec", "session"])
def test_guided_fuzzing(target: str, tmp_path: Path) -> None:
    """`make test-all`, which installs the fuzzer, must not pass without it."""
    if importlib.util.find_spec("atheris") is None and not os.environ.get("AMSYNC_TEST_ALL"):
        pytest.skip("atheris is not installed (extra `fuzz`)")
    run_fuzzer(tmp_path, str(HERE / "run.py"), target, str(SECONDS))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 180)
@pytest.mark.parametrize("fuzzer", ["fuzz_document.py", "fuzz_operations.py", "fuzz_sync.py"])
def test_random_fuzzing(fuzzer: str, tmp_path: Path) -> None:
    run_fuzzer(tmp_path, str(HERE / fuzzer), str(SECONDS))


def run_fuzzer(directory: Path, *arguments: str) -> None:
    done = run_to_end([sys.executable, *arguments], directory=directory, timeout=SECONDS + 120)
    found = {file.name: file.read_bytes().hex() for file in directory.glob("*-*")}
    assert (done.returncode, found) == (0, {}), (done.stdout + done.stderr)[-6000:]

"""Run a coverage-guided fuzzer: `python tests/fuzz/run.py codec|session [SECONDS]`.

Needs atheris (the optional extra `fuzz`). What it finds is written to the working directory as
`crash-...`: add it to tests/fuzz/corpus/<target>/, where `make test` replays it.
"""

import importlib
import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-untyped]

HERE = Path(__file__).parent


def main(target: str, seconds: int) -> None:
    """Fuzz for a time; ends the process."""
    sys.path.insert(0, str(HERE.parent))
    with atheris.instrument_imports(include=["amsync", "cbor2", "fuzz"]):
        module = importlib.import_module(f"fuzz.fuzz_{target}")
    with tempfile.TemporaryDirectory(prefix="amsync-fuzz-") as found:
        options = [
            f"-max_total_time={seconds}",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-max_len=100000",
            "-print_final_stats=1",
        ]
        atheris.Setup(
            [sys.argv[0], *options, found, str(HERE / "corpus" / target)], module.one_input
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 60)

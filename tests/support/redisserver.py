"""A Redis (or Valkey) of a test's own: private, no persistence unless asked, ended by pid.

`AMSYNC_TEST_REDIS` names the server to run; else redis-server or valkey-server of PATH; else what
tools/get-redis.sh has put into .build. Without one a test fails: it never passes unrun.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .closing import Closing

ROOT = Path(__file__).parents[2]
BUILT = ROOT / ".build" / "redis"
START_SECONDS = 20.0


def find_server() -> tuple[Path, dict[str, str]]:
    """The server's program, and the environment that it needs."""
    named = os.environ.get("AMSYNC_TEST_REDIS")
    for name in [named] if named else ["redis-server", "valkey-server"]:
        path = shutil.which(name)
        if path is not None:
            return Path(path), dict(os.environ)
    built = BUILT / "usr" / "bin" / "redis-server"
    assert not named, f"AMSYNC_TEST_REDIS={named} is no program"
    assert built.exists(), (
        "no redis-server: apt install redis-server (or valkey-server), run tools/get-redis.sh,"
        " or set AMSYNC_TEST_REDIS=/path/to/redis-server"
    )
    libraries = ":".join(map(str, sorted((BUILT / "usr" / "lib").glob("*-linux-gnu*"))))
    return built, {**os.environ, "LD_LIBRARY_PATH": libraries}


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer(Closing):
    """A running server, in a folder of its own.

    Attributes:
        url: For clients, over its unix socket.
        tcp_url: The same over TCP, if it was given a port.
    """

    def __init__(
        self, *options: str, port: int = 0, is_sentinel: bool = False, persists: bool = False
    ) -> None:
        self._program, self._environment = find_server()
        # A socket's path has to be short, which pytest's folders are not.
        self.folder = Path(tempfile.mkdtemp(prefix="amsync-redis-"))
        self.socket = self.folder / "s"
        self.port = port
        self.url = f"unix://{self.socket}"
        self.tcp_url = f"redis://127.0.0.1:{port}"
        self._options = options
        self._is_sentinel = is_sentinel
        self._persists = persists
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def _command(self) -> Sequence[str]:
        common = ["--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)]
        if self._is_sentinel:
            file = self.folder / "sentinel.conf"
            if not file.exists():
                file.write_text("")
            return [str(self._program), str(file), "--sentinel", *common, *self._options]
        aof = ["--appendonly", "yes"] if self._persists else ["--appendonly", "no"]
        return [str(self._program), *common, "--save", "", *aof, *self._options]

    def start(self) -> None:
        """Start it again, after `kill9`; returns when it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            running = self.process.poll() is None
            if not running or time.monotonic() > deadline:
                said = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.close()
                raise AssertionError(f"redis-server did not start: {said}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64)[:5] in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def signal(self, number: int) -> None:
        """Send it a signal, such as SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill9(self) -> None:
        """End it as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it and remove what it has written."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

"""`amsync.Server` in a Python program of its own, which deletes documents when told to.

There is no other way to delete yet. Run as a module it is that program: it serves until its
standard input ends; a line with a document's id deletes that document, and is answered.
"""

import json
import os
import queue
import signal
import sys
from pathlib import Path

import amsync
from support import admin
from support.closing import Closing
from support.program import Program

START_SECONDS = 60.0
ANSWER_SECONDS = 20.0


class EmbeddedServer(Closing):
    """The program, started. Use it as a context manager.

    Attributes:
        url: Where clients connect; the same at every start.
    """

    def __init__(self, data_dir: Path, log: Path, *, announce: bool = False) -> None:
        self.data_dir = data_dir
        self.log = log
        self.url = ""
        self._announce = announce
        self._port = 0
        self.start()

    def start(self) -> None:
        """Start it, again after its end on the same port and directory."""
        self._lines: queue.Queue[str] = queue.Queue()
        self._kill_at_answer = False
        options = {"port": self._port, "data_dir": str(self.data_dir), "share": self._announce}
        with self.log.open("ab") as log:
            self._program = Program(
                [sys.executable, "-m", __name__, json.dumps(options)],
                self._take_line,
                stderr=log,
                environment={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                has_input=True,
            )
        line = self._lines.get(timeout=START_SECONDS)
        assert line, f"the server did not start:\n{self.log.read_text()[-4000:]}"
        self.url, self._admin_url = json.loads(line)
        self._port = int(self.url.rpartition(":")[2])

    def delete(self, document_id: str) -> None:
        """Delete; returns when that was acknowledged."""
        self._tell(document_id)
        assert self._lines.get(timeout=ANSWER_SECONDS) == f"deleted {document_id}\n"

    def delete_and_kill9(self, document_id: str) -> None:
        """Delete, and kill the process the instant the acknowledgement is read."""
        self._kill_at_answer = True
        self.delete(document_id)
        self.kill9()

    def metrics(self) -> dict[str, float]:
        """All samples by name with labels, as the admin port shows them."""
        return admin.metrics(self._admin_url)

    def stop(self) -> None:
        """End it as the program itself would."""
        status = self._program.wait()
        assert status == 0, f"ended with {status}:\n{self.log.read_text()[-4000:]}"

    def kill9(self) -> None:
        self._program.kill9()

    def close(self) -> None:
        if self._program.running():
            self.kill9()

    def _tell(self, line: str) -> None:
        pipe = self._program.process.stdin
        assert pipe is not None
        pipe.write(f"{line}\n")
        pipe.flush()

    def _take_line(self, line: str) -> None:
        if self._kill_at_answer and line.startswith("deleted"):
            self._program.process.send_signal(signal.SIGKILL)
        self._lines.put(line)


def main(options: str) -> None:
    fields = json.loads(options)
    fields["share"] = amsync.Share.ANNOUNCE if fields["share"] else amsync.Share.ALLOW
    with amsync.Server(admin_port=0, **fields) as server:
        print(json.dumps([server.url, server.admin_url]), flush=True)
        for line in sys.stdin:
            server.delete_document(line.strip())
            print(f"deleted {line.strip()}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

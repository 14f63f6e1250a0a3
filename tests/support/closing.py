"""What ends with `close()` as a context manager."""

from typing import Self


class Closing:
    """Its block ends with `close()`, which may be called before and twice."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

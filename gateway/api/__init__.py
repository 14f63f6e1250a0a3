"""The calls of a gateway's admin port, below `amsync.version.API_PATH`; see docs/api.md."""

from amsync.gateway.api.calls import all_calls
from amsync.gateway.api.cluster import Look

__all__ = ["Look", "all_calls"]

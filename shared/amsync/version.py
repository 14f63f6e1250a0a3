"""The version of the installed distribution, and where the calls of its admin port are."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("amsync-server")
except PackageNotFoundError:  # run from a source tree without an installation
    __version__ = "0+unknown"

API_PATH = "/api/v1"
"""Every call of the admin port is below it."""

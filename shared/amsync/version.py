"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("amsync-server")
except PackageNotFoundError:  # run from a source tree without an installation
    __version__ = "0+unknown"

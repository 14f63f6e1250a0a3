"""`python -m amsync`."""

from amsync.cli import main

main()

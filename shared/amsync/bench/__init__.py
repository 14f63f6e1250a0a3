"""Load on any automerge-repo server, and comparisons of several: what `amsync bench` does.

It uses nothing of our own server but its command: all servers are separate programs that are
reached through the protocol alone.

- `load`: clients of one server, in the native generator
- `serving`, `install`: servers as programs that are started, watched and ended
- `processes`, `machine`: what is read off the system
- `workloads`: what is done to a server and measured, one module each
- `plan`: which workloads with which numbers; `runner`: doing it
- `results`, `table`, `goals`: telling it
"""

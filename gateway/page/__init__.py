"""The operator's page of the admin port: files that a browser runs as they are.

Beside these files it needs only the calls below /api/v1, which want the admin token; the files
hold no data and are open. See docs/page.md.
"""

from amsync.gateway.page.serving import routes

__all__ = ["routes"]

"""Who may do what with a document: everybody who has a say is asked, and the strictest wins.

- `config`: what an operator can ask for.
- `claims`, `callables`, `webhook`: who has a say, beside a constant `share`.
- `policy`: asks them, in bounds, and keeps what they said.
"""

from amsync.gateway.access.callables import ShareCallable, parse_share
from amsync.gateway.access.config import AccessConfig, CheckCallable, Decision, Webhook
from amsync.gateway.access.policy import AccessPolicy

__all__ = [
    "AccessConfig",
    "AccessPolicy",
    "CheckCallable",
    "Decision",
    "ShareCallable",
    "Webhook",
    "parse_share",
]

"""What operators order while clients are connected: who must go, what may be done no more.

- `standing`: the orders that hold now, and what they mean for somebody.
- `stream`: how orders reach every gateway, and stay on the bus until their end.
- `enforcer`: both together, applied to the connections of this gateway.

The calls that give orders are in `amsync.gateway.api.access`.

Orders live in gateways' memory and on the bus, not on the volume: they bridge the time until
tokens have expired and those who decide have changed their mind. When the last gateway has ended
and the bus is empty, they are gone; with the embedded server they end with the process.
"""

from amsync.gateway.orders.enforcer import Enforcer

__all__ = ["Enforcer"]

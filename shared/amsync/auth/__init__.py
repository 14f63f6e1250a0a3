"""Who a client is: tokens (JWT) of OIDC issuers, verified by keys of theirs.

This package knows tokens and issuers. What is done with a client that is refused, and what one
who is known may do with a document, is the gateway's matter.
"""

from amsync.auth.authenticator import Authenticator
from amsync.auth.config import AuthConfig, Issuer
from amsync.auth.identity import Identity
from amsync.errors import AuthRefused

__all__ = ["AuthConfig", "AuthRefused", "Authenticator", "Identity", "Issuer"]

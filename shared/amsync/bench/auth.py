"""A server of ours that wants a token, and a token for it: what verifying costs.

The key is a file, so nothing is fetched: as with an issuer whose keys are known already. The token
comes in the query, and no TLS is in the way: a proxy on this machine would have ended it.
"""

import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from amsync.bench.serving import Server, StartedServer
from amsync.version import __version__

NAME = "amsync-auth"
ISSUER, AUDIENCE = "https://issuer.invalid", "bench"


def server_with_tokens(scratch: Path) -> Server:
    """`amsync serve` for clients that show an RS256 token.

    Args:
        scratch: A folder that outlives the server.
    """
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keys = scratch / "issuer.pem"
    keys.write_bytes(public)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "bench", "iat": now, "exp": now + 86_400}
    token = jwt.encode(claims, key, "RS256")
    command = [sys.executable, "-m", "amsync", "serve", "--port", "0", "--admin-port", "off"]
    command += ["--trusted-proxies", "127.0.0.1", "--auth-allow-query-token"]
    command += ["--auth-client-id", AUDIENCE, "--auth-issuer", ISSUER, "--auth-keys", str(keys)]
    command += ["--handshakes-per-minute", "0", "--data-dir"]
    return StartedServer(NAME, __version__, command, query=f"?access_token={token}")

"""What a verification costs: CPU time of this thread, the best of many rounds."""

import time

import pytest

from amsync.auth import AuthConfig, Authenticator
from support.issuer import CLIENT_ID, SigningKey

MOST_SECONDS = 0.0003
ROUNDS, CALLS = 30, 50


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_verification_with_known_keys_costs_less_than_a_third_of_a_millisecond(
    algorithm: str,
) -> None:
    key = SigningKey("k", algorithm)
    keys = [key, *(SigningKey(f"other-{number}", "ES256") for number in range(5))]
    authenticator = Authenticator(
        AuthConfig(CLIENT_ID, "ours", keys={"keys": [each.jwk() for each in keys]})
    )
    now = int(time.time())
    claims = {"iss": "ours", "aud": CLIENT_ID, "sub": "s" * 40, "iat": now, "exp": now + 600}
    token = key.sign({**claims, "email": "somebody@example.com", "groups": ["group"] * 20})

    def seconds() -> float:
        before = time.thread_time()
        for _ in range(CALLS):
            assert authenticator.verify_now(token) is not None
        return (time.thread_time() - before) / CALLS

    assert min(seconds() for _ in range(ROUNDS)) < MOST_SECONDS

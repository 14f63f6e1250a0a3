"""`Authenticator`: from a token's text to an identity, or to a refusal.

The order: the text's shape; the issuer that it names, which picks whose keys count; signature;
times, audience, subject; who of those may come in; the operator's validator. What is after the
signature is never reached by what nobody has signed.
"""

import contextlib
import functools
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from amsync.auth import token as tokens
from amsync.auth.claims import Expected, identify
from amsync.auth.config import AuthConfig
from amsync.auth.fetch import Fetched, fetch_keys
from amsync.auth.identity import Identity
from amsync.auth.issuers import TENANT, Issuer, known_as, tenants_of
from amsync.auth.keys import Key, KeySet
from amsync.auth.remote import RemoteKeys
from amsync.auth.token import Opened
from amsync.auth.validator import CustomValidator
from amsync.errors import AuthRefused
from amsync.seldom import Seldom

log = logging.getLogger("amsync.auth")

_TENANT_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class _Trust:
    """One issuer, with what is needed to verify its tokens."""

    issuer: Issuer
    expected: Expected
    algorithms: frozenset[str]
    own_keys: KeySet | None
    remote: RemoteKeys | None

    def keys(self) -> KeySet | None:
        if self.remote is not None:
            return self.remote.current()
        return self.own_keys

    def name_of(self, token: Opened) -> str | None:
        """What the issuer of this token is called in identities; None: it is not this one."""
        tenants = None if self.remote is None else self.remote.tenants
        if tenants is None:
            return self.issuer.url if token.issuer in known_as(self.issuer.url) else None
        tenant = token.claims.get("tid")
        if not isinstance(tenant, str) or not _TENANT_ID.fullmatch(tenant):
            return None
        return token.issuer if token.issuer == tenants.replace(TENANT, tenant) else None


class Authenticator:
    """Verifies tokens by the rules of an `AuthConfig`. Lives on one event loop.

    `start` before, `close` after; without `start` no keys are fetched. Events are told to
    `count(event, label)`: `auth_accepted` (the algorithm), `auth_refused` (the reason),
    `auth_key_fetches` (ok, or why not).
    """

    def __init__(
        self,
        config: AuthConfig,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        count: Callable[[str, str], None] = lambda _event, _label: None,
        validator_timeout_seconds: float = 10.0,
    ) -> None:
        """Prepare; nothing is asked of anybody yet.

        Args:
            clock: Seconds since 1970; for tokens.
            monotonic: For the ages of keys.
            count: Called on the loop, for events that are added up.

        Raises:
            ConfigError: A file that the configuration names can't be used any more.
        """
        self._config, self._clock, self._monotonic, self._count = config, clock, monotonic, count
        self._policy = config.policy()
        self._is_started = False
        self._validator: CustomValidator | None = None
        if config.custom_validator is not None:
            self._validator = CustomValidator(
                config.custom_validator, monotonic, validator_timeout_seconds
            )
        self._by_name: dict[str, _Trust] = {}
        self._of_tenants: list[_Trust] = []
        self._remotes: list[RemoteKeys] = []
        for issuer in config.all_issuers:
            trust = self._trust(issuer)
            self._by_name |= dict.fromkeys(known_as(issuer.url), trust)
            if trust.remote is not None and tenants_of(issuer.url) is not None:
                self._of_tenants.append(trust)
        self._context = config.tls_context() if self._remotes else None
        self._may_warn = Seldom(60.0, monotonic)

    def _trust(self, issuer: Issuer) -> _Trust:
        parties = frozenset(issuer.authorized_parties)
        audiences = frozenset(issuer.audiences)
        expected = Expected(
            audiences, parties or audiences, bool(parties), self._config.leeway_seconds
        )
        own_keys = issuer.own_keys()
        remote = None
        if own_keys is None:
            remote = RemoteKeys(
                issuer.url,
                functools.partial(self._fetch, issuer),
                max_stale_seconds=self._config.max_stale_seconds,
                clock=self._monotonic,
                count=self._count,
            )
            self._remotes.append(remote)
        return _Trust(issuer, expected, issuer.accepted, own_keys, remote)

    @property
    def config(self) -> AuthConfig:
        """The rules by which it verifies."""
        return self._config

    async def start(self) -> None:
        """Begin to fetch keys; does not wait for them, and no issuer that is down prevents it."""
        if not self._is_started:
            self._is_started = True
            for each in self._remotes:
                each.start()

    async def close(self) -> None:
        """End fetching. Whoever waits for keys is refused."""
        for each in self._remotes:
            await each.close()
        if self._validator is not None:
            self._validator.close()

    def verify_now(self, token: str) -> Identity | None:
        """Verify without waiting for anything; None: only `verify` can tell.

        Takes about 0.1 ms. Raises AuthRefused.
        """
        if self._validator is not None:
            return None
        with self._refusing():
            found = self._attempt(token, is_last=False)
            if isinstance(found, RemoteKeys):
                return None
            return self._accept(found)

    async def verify(self, token: str) -> Identity:
        """Verify, and wait for keys or the validator if that is needed.

        Bounded: some 25 s at worst. Raises AuthRefused, whatever goes wrong.
        """
        with self._refusing():
            found = self._attempt(token, is_last=False)
            if isinstance(found, RemoteKeys):
                await found.refresh()
                found = self._attempt(token, is_last=True)
                assert not isinstance(found, RemoteKeys)
            if self._validator is not None:
                await self._validator.check(found[1].claims)
            return self._accept(found)

    def _accept(self, found: tuple[str, Identity]) -> Identity:
        algorithm, identity = found
        self._count("auth_accepted", algorithm)
        return identity

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn whatever goes wrong into a refusal, and count it."""
        try:
            yield
        except AuthRefused as refused:
            self._count("auth_refused", refused.reason)
            raise
        except Exception as error:
            self._count("auth_refused", "internal")
            if self._may_warn():  # not its text: that may hold a part of the token
                log.error(
                    "verification failed; the client is refused",
                    extra={"error": f"{type(error).__name__} {_place(error)}"},
                )
            raise AuthRefused(401, "internal") from None

    def _attempt(self, text: str, *, is_last: bool) -> tuple[str, Identity] | RemoteKeys:
        """Algorithm and identity, or whose keys have to be fetched first."""
        token = tokens.read(text, self._config.max_token_bytes)
        trust = self._trust_of(token)
        if token.algorithm not in trust.algorithms:
            raise AuthRefused(401, "algorithm_refused")
        keys, remote = trust.keys(), trust.remote
        may_help = remote is not None and not is_last and remote.may_help()
        if keys is None:
            if may_help and remote is not None:
                return remote
            raise AuthRefused(401, "keys_unavailable")
        name = trust.name_of(token)
        if name is None:
            raise AuthRefused(401, "issuer_unknown")
        candidates = [
            each for each in keys.find(token.key_id, token.algorithm) if _may_sign(each, name)
        ]
        if not tokens.is_signed_by(token, candidates):
            # A key without an id may have been replaced by another without one.
            is_unknown = all(each.key_id is None for each in candidates)
            if is_unknown and may_help and remote is not None:
                return remote
            raise AuthRefused(401, "signature_invalid" if candidates else "key_unknown")
        identity = identify(token.claims, name, trust.expected, self._clock())
        self._policy.check(identity)
        return token.algorithm, identity

    def _trust_of(self, token: Opened) -> _Trust:
        trust = self._by_name.get(token.issuer)
        if trust is not None:
            return trust
        for each in self._of_tenants:
            tenants = tenants_of(each.issuer.url)
            assert tenants is not None
            before, _, after = tenants.partition(TENANT)
            if token.issuer.startswith(before) and token.issuer.endswith(after):
                return each
        raise AuthRefused(401, "issuer_unknown")

    async def _fetch(self, issuer: Issuer) -> Fetched:
        assert self._context is not None
        return await fetch_keys(issuer, self._context)


def _may_sign(key: Key, issuer: str) -> bool:
    """Microsoft's keys are of one tenant, or of all that have no key of their own."""
    if key.issuer is None or key.issuer == issuer:
        return True
    before, found, after = key.issuer.partition(TENANT)
    return bool(found) and issuer.startswith(before) and issuer.endswith(after)


def _place(error: BaseException) -> str:
    """Where something was raised, without what it was raised about."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "somewhere"
    code = traceback.tb_frame.f_code
    return f"in {code.co_name}, line {traceback.tb_lineno}"

"""Repos with our own client, and what they are told of their connection."""

from interop.driver import Driver
from interop.repos import DEFAULT_SECONDS, Json, Repo

Token = str | dict[str, bool] | None
FAILS: Token = {"fails": True}
HANGS: Token = {"hangs": True}


class TokenRepo(Repo):
    """A Repo whose adapter is AmsyncClientAdapter; see tests/js/tokens.mjs."""

    def wait_status(
        self,
        state: str,
        reason: str | None = None,
        *,
        count: int = 1,
        timeout: float = DEFAULT_SECONDS,
    ) -> Json:
        """The newest such status, once there were so many."""
        named = {} if reason is None else {"reason": reason}
        return self.call("waitStatus", timeout, state=state, count=count, **named)

    def statuses(self) -> list[Json]:
        found: list[Json] = self.call("allStatuses")
        return found

    def story(self) -> list[str]:
        """All statuses in short: "waiting network"."""
        return [f"{each['state']} {each.get('reason', '')}".strip() for each in self.statuses()]

    def asked(self) -> list[str]:
        """For what reasons tokens were asked for."""
        return [each["reason"] for each in self.call("asked")]

    def wait_asked(self, count: int) -> list[Json]:
        found: list[Json] = self.call("waitAsked", count=count)
        return found

    def set_tokens(self, *tokens: Token) -> None:
        self.call("setTokens", tokens=list(tokens))

    def release(self, token: str) -> None:
        """Give a token to all who still wait for one."""
        self.call("release", token=token)

    def sockets(self) -> Json:
        """How many were opened, stand, and stood at once at most."""
        return self.call("sockets")

    def retry(self, times: int = 1) -> Json:
        return self.call("retry", times=times)


class Clients:
    """Makes them; they trust the server and its issuer."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self._count = 0

    def come(
        self,
        url: str,
        *tokens: Token,
        random: float | None = None,
        announce: bool = True,
        wait: bool = False,
        **options: float,
    ) -> TokenRepo:
        """Connect; `options` are those of the adapter."""
        self._count += 1
        repo = TokenRepo(self.driver, f"token-repo-{self._count}")
        given = {"minRetryMs": 20, "maxRetryMs": 200, **options}
        args = {"peer": repo.name, "url": url, "tokens": list(tokens), "options": given}
        if random is not None:
            args["random"] = random
        args["announce"] = announce
        repo.peer_id = self.driver.call("connectWithTokens", args)["peerId"]
        self.driver.keep(repo)
        if wait:
            repo.wait_status("connected")
        return repo

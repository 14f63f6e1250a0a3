"""TLS for the server's own socket, and self-signed certificates for trying it."""

import asyncio
import datetime
import ipaddress
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from amsync.errors import ConfigError

log = logging.getLogger("amsync")

LOOK_SECONDS = 10.0
"""How often certificate files are looked at."""

_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True)
class TLSConfig:
    """Certificate chain and private key, each a path or PEM text.

    Args:
        cert: The certificate, followed by intermediate ones.
        key: Its unencrypted private key.
        minimum_version: "TLSv1.2" or "TLSv1.3".
    """

    cert: str | os.PathLike[str]
    key: str | os.PathLike[str]
    minimum_version: str = "TLSv1.2"

    def __repr__(self) -> str:
        return f"TLSConfig(cert={_shown(self.cert)}, minimum_version={self.minimum_version!r})"

    def server_context(self) -> ssl.SSLContext:
        """Build the context for a listening socket.

        Raises:
            ConfigError: The files can't be read, or are no matching pair.
        """
        version = _VERSIONS.get(self.minimum_version)
        if version is None:
            raise ConfigError(
                f"tls minimum_version={self.minimum_version!r} is not known;"
                f" allowed are {', '.join(_VERSIONS)}"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = version
        with tempfile.TemporaryDirectory(prefix="amsync-tls-") as directory:
            cert = _as_file("cert", self.cert, Path(directory) / "cert.pem")
            key = _as_file("key", self.key, Path(directory) / "key.pem")
            try:
                # An empty password: without one OpenSSL would ask on the terminal.
                context.load_cert_chain(cert, key, password="")
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(
                    f"tls: certificate ({_shown(self.cert)}) and key ({_shown(self.key)}) can't be"
                    f" used: {error}; give a PEM certificate chain and its unencrypted key"
                ) from error
        return context

    def expires_at(self) -> float:
        """When the certificate is not valid any more, in seconds since 1970.

        Raises:
            ConfigError: It can't be read.
        """
        try:
            pem = str(self.cert).encode() if _is_pem(self.cert) else Path(self.cert).read_bytes()
            return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
        except (OSError, ValueError) as error:
            raise ConfigError(f"tls cert={_shown(self.cert)} can't be read: {error}") from error

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Changes when a file is written or replaced. Raises OSError."""
        found = [Path(each).stat() for each in (self.cert, self.key) if not _is_pem(each)]
        return tuple((each.st_ino, each.st_size, each.st_mtime_ns) for each in found)


class Certificates:
    """The context of a listening socket, with a certificate that can be renewed under it.

    Args:
        reloaded: Called with "ok" or "failed" when files have changed.
        expires: Called with `TLSConfig.expires_at` of what is in use.

    Attributes:
        context: For the listening socket. Each handshake is done with the newest one behind it, so
            no handshake sees the certificate of one pair and the key of another.

    Raises:
        ConfigError: The files can't be read, or are no matching pair.
    """

    def __init__(
        self,
        config: TLSConfig,
        *,
        reloaded: Callable[[str], None],
        expires: Callable[[float], None],
    ) -> None:
        self._config = config
        self._reloaded, self._expires = reloaded, expires
        self._stamp = self._look_at_files()
        self.context = self._current = config.server_context()
        self.context.sni_callback = self._use_current
        self._expires(config.expires_at())

    async def run(self) -> None:
        """Look at the files every ten seconds until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Take the certificate again if a file of it has changed; a bad one is left alone."""
        stamp = self._look_at_files()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._current = self._config.server_context()
            self._expires(self._config.expires_at())
        except ConfigError as error:
            self._stamp = None  # files that are being replaced are looked at again
            self._reloaded("failed")
            log.error("a new certificate can't be used; the old one stays", extra={"error": error})
        else:
            self._reloaded("ok")
            log.info("the certificate was taken anew")

    def _use_current(
        self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        connection.context = self._current

    def _look_at_files(self) -> object:
        try:
            return self._config.stamp()
        except (OSError, TypeError):  # what is wrong is said by who loads it
            return None


def _is_pem(value: str | os.PathLike[str]) -> bool:
    return isinstance(value, str) and value.lstrip().startswith("-----BEGIN")


def _shown(value: str | os.PathLike[str]) -> str:
    return "PEM text" if _is_pem(value) else str(value)


def _as_file(name: str, value: str | os.PathLike[str], path: Path) -> Path:
    """OpenSSL reads files only; PEM text goes into a private one for as long as it is read."""
    if not isinstance(value, str | os.PathLike):
        raise ConfigError(f"tls {name}={value!r} is not allowed; give a path or PEM text")
    if not _is_pem(value):
        return Path(value)
    _write_private(path, str(value).encode())
    return path


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # the file may have been there, open to all
        file.write(data)


def write_cert(
    directory: str | os.PathLike[str] = ".",
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1", "::1"),
    days: int = 365,
) -> TLSConfig:
    """Write a self-signed certificate and its key, for trying TLS without an authority.

    Args:
        directory: Made if missing; gets `amsync-cert.pem` and `amsync-key.pem` (mode 0600).
        hosts: Names and addresses that the certificate is for.
        days: How long it is valid.

    Returns:
        The pair, ready for `Server(tls=...)`. Clients have to trust the certificate's file.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(h) for h in hosts]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "amsync-cert.pem", folder / "amsync-key.pem"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(
        key_path,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    return TLSConfig(cert_path, key_path)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)

"""TLS on the server's own socket: certificates, versions, and a sync over wss."""

import datetime
import ipaddress
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

import amsync
from amsync import ConfigError, Limits, Server, TLSConfig, write_cert
from amsync.tls import Certificates
from server.replicas import ReplicaClient, eventually, samples
from support.rawclient import RawClient


@pytest.fixture
def pair(tmp_path: Path) -> TLSConfig:
    return write_cert(tmp_path / "tls")


@pytest.fixture
def server(tmp_path: Path, pair: TLSConfig) -> Iterator[Server]:
    with Server(data_dir=tmp_path / "data", tls=pair) as server:
        yield server


def trusting(pair: TLSConfig) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=os.fspath(pair.cert))


def certificate(pair: TLSConfig) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Path(pair.cert).read_bytes())


class TestWriteCert:
    def test_files_and_their_modes(self, tmp_path: Path) -> None:
        pair = write_cert(tmp_path / "new" / "folder")
        assert Path(pair.cert).read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert stat.S_IMODE(Path(pair.key).stat().st_mode) == 0o600

    def test_existing_key_is_replaced_and_private(self, tmp_path: Path) -> None:
        """An old key file, readable by all, must not lend its mode to the new key."""
        first = write_cert(tmp_path)
        old = Path(first.key).read_bytes()
        Path(first.key).chmod(0o644)

        second = write_cert(tmp_path)

        assert Path(second.key).read_bytes() != old
        assert stat.S_IMODE(Path(second.key).stat().st_mode) == 0o600

    def test_names_and_addresses(self, tmp_path: Path) -> None:
        found = certificate(write_cert(tmp_path, hosts=["example.org", "192.0.2.7", "2001:db8::1"]))
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["example.org"]
        assert names.get_values_for_type(x509.IPAddress) == [
            ipaddress.ip_address("192.0.2.7"),
            ipaddress.ip_address("2001:db8::1"),
        ]

    def test_default_names_are_this_machine(self, pair: TLSConfig) -> None:
        extension = certificate(pair).extensions
        names = extension.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        addresses = names.get_values_for_type(x509.IPAddress)
        assert [str(address) for address in addresses] == ["127.0.0.1", "::1"]

    def test_it_is_valid_now_and_as_long_as_asked(self, tmp_path: Path) -> None:
        found = certificate(write_cert(tmp_path, days=3))
        now = datetime.datetime.now(datetime.UTC)
        assert found.not_valid_before_utc < now
        left = found.not_valid_after_utc - now
        assert datetime.timedelta(days=2, hours=23) < left <= datetime.timedelta(days=3)


def test_sync_over_wss(server: Server, pair: TLSConfig) -> None:
    assert server.url.startswith("wss://127.0.0.1:")
    document_id = server.create_document(data={"n": 1})
    with (
        ReplicaClient(server.url, document_id, peer_id="one", context=trusting(pair)) as one,
        ReplicaClient(server.url, document_id, peer_id="two", context=trusting(pair)) as two,
    ):
        one.wait_value({"n": 1})
        two.wait_loaded()
        two.put("blob", b"x" * 300_000)
        two.wait_acknowledged()
        one.wait_value({"n": 1, "blob": b"x" * 300_000})


def test_pem_text_works_as_well(tmp_path: Path, pair: TLSConfig) -> None:
    text = TLSConfig(Path(pair.cert).read_text(), Path(pair.key).read_text())
    with (
        Server(data_dir=tmp_path / "data", tls=text) as server,
        RawClient(server.url, context=trusting(pair)) as client,
    ):
        client.join()


def test_str_paths_work_as_well(tmp_path: Path, pair: TLSConfig) -> None:
    paths = TLSConfig(str(pair.cert), str(pair.key))
    with (
        Server(data_dir=tmp_path / "data", tls=paths) as server,
        RawClient(server.url, context=trusting(pair)) as client,
    ):
        client.join()


def test_client_that_does_not_trust_the_certificate_leaves(server: Server) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        RawClient(server.url, context=ssl.create_default_context())
    assert samples(server)["amsync_connections"] == 0


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("minimum", "offered", "accepted"),
    [
        ("TLSv1.2", ssl.TLSVersion.TLSv1_1, False),
        ("TLSv1.2", ssl.TLSVersion.TLSv1_2, True),
        ("TLSv1.2", ssl.TLSVersion.TLSv1_3, True),
        ("TLSv1.3", ssl.TLSVersion.TLSv1_2, False),
        ("TLSv1.3", ssl.TLSVersion.TLSv1_3, True),
    ],
)
def test_minimum_version(
    tmp_path: Path, pair: TLSConfig, minimum: str, offered: ssl.TLSVersion, accepted: bool
) -> None:
    context = trusting(pair)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = offered
    config = TLSConfig(pair.cert, pair.key, minimum)
    with Server(data_dir=tmp_path / "data", tls=config) as server:
        if accepted:
            with RawClient(server.url, context=context) as client:
                client.join()
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                RawClient(server.url, context=context)


def other_key(path: Path) -> Path:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def encrypted_key(path: Path, pair: TLSConfig) -> Path:
    key = serialization.load_pem_private_key(Path(pair.key).read_bytes(), None)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    return path


class TestWrongPairs:
    def refuse(self, tmp_path: Path, cert: Any, key: Any, *words: str) -> None:
        server = Server(data_dir=tmp_path / "data", tls=TLSConfig(cert, key))
        with pytest.raises(ConfigError) as caught:
            server.start()
        message = str(caught.value)
        for word in ("tls", *words):
            assert word in message
        assert "PRIVATE" not in message

    def test_files_that_do_not_exist(self, tmp_path: Path, pair: TLSConfig) -> None:
        self.refuse(tmp_path, tmp_path / "no-cert", pair.key, "no-cert")
        self.refuse(tmp_path, pair.cert, tmp_path / "no-key", "no-key")

    def test_key_of_another_certificate(self, tmp_path: Path, pair: TLSConfig) -> None:
        key = other_key(tmp_path / "other.pem")
        self.refuse(tmp_path, pair.cert, key, "amsync-cert.pem", "other.pem")

    def test_key_and_certificate_swapped(self, tmp_path: Path, pair: TLSConfig) -> None:
        self.refuse(tmp_path, pair.key, pair.cert, "certificate")

    def test_files_that_are_no_pem(self, tmp_path: Path, pair: TLSConfig) -> None:
        (tmp_path / "text").write_text("hello")
        self.refuse(tmp_path, tmp_path / "text", pair.key, "text")
        self.refuse(tmp_path, pair.cert, tmp_path / "text", "text")

    def test_pem_text_that_is_broken(self, tmp_path: Path, pair: TLSConfig) -> None:
        broken = "-----BEGIN CERTIFICATE-----\nhello\n-----END CERTIFICATE-----\n"
        self.refuse(tmp_path, broken, pair.key, "PEM text")
        assert "hello" not in repr(TLSConfig(broken, broken))

    def test_encrypted_key_is_refused_and_nobody_is_asked(
        self, tmp_path: Path, pair: TLSConfig
    ) -> None:
        """OpenSSL would ask for the password on the terminal or standard input, for ever."""
        key = encrypted_key(tmp_path / "locked.pem", pair)
        program = (
            "import sys; from amsync import TLSConfig; TLSConfig(*sys.argv[1:]).server_context()"
        )
        read_end, write_end = os.pipe()
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, str(pair.cert), str(key)],
                stdin=read_end,
                capture_output=True,
                text=True,
                timeout=60,
                start_new_session=True,
                check=False,
            )
        finally:
            os.close(read_end)
            os.close(write_end)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("amsync.errors.ConfigError")
        assert "encrypted" in last
        assert "pass phrase" not in done.stderr

    def test_unknown_minimum_version(self, tmp_path: Path, pair: TLSConfig) -> None:
        server = Server(data_dir=tmp_path, tls=TLSConfig(pair.cert, pair.key, "SSLv3"))
        with pytest.raises(ConfigError, match=r"SSLv3.*TLSv1\.2, TLSv1\.3"):
            server.start()

    def test_wrong_types(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="tls"):
            Server(data_dir=tmp_path, tls=TLSConfig(5, None)).start()  # type: ignore[arg-type]


def test_repr_never_shows_a_key(pair: TLSConfig) -> None:
    key = Path(pair.key).read_text()
    shown = repr(TLSConfig(Path(pair.cert).read_text(), key))
    assert "PRIVATE" not in shown
    assert key.splitlines()[1] not in shown


def test_pem_text_leaves_no_file_behind(
    tmp_path: Path, pair: TLSConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    TLSConfig(Path(pair.cert).read_text(), Path(pair.key).read_text()).server_context()
    assert list(scratch.iterdir()) == []


def test_plain_socket_at_a_tls_port_is_dropped(server: Server, pair: TLSConfig) -> None:
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, 20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        plain.settimeout(20)
        assert b"HTTP" not in plain.recv(100)
    with RawClient(server.url, context=trusting(pair)) as client:
        client.join()


def test_tls_handshake_has_a_deadline(tmp_path: Path, pair: TLSConfig) -> None:
    limits = Limits(handshake_seconds=0.3)
    with (
        Server(data_dir=tmp_path / "data", tls=pair, limits=limits) as server,
        socket.create_connection(("127.0.0.1", server.port), 20) as silent,
    ):
        silent.settimeout(20)
        assert silent.recv(1) == b""


def test_abrupt_end_of_a_tls_client_is_no_fault(server: Server, pair: TLSConfig) -> None:
    client = RawClient(server.url, context=trusting(pair))
    client.join()
    client.drop()
    eventually(lambda: samples(server)["amsync_connections"] == 0)
    client.close()
    with RawClient(server.url, context=trusting(pair)) as other:
        other.join()
        assert other.is_answered(amsync.generate_document_id())


def test_chain_of_certificates_is_sent(tmp_path: Path) -> None:
    """cert may be a chain: clients that trust the root only must be able to follow it."""
    root_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    now = datetime.datetime.now(datetime.UTC)

    def issue(name: str, key: Any, issuer: str, signer: Any, *, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        return builder.sign(signer, hashes.SHA256())

    middle_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    leaf_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    root = issue("root", root_key, "root", root_key, ca=True)
    middle = issue("middle", middle_key, "root", root_key, ca=True)
    leaf = issue("leaf", leaf_key, "middle", middle_key, ca=False)
    pem = serialization.Encoding.PEM
    chain = leaf.public_bytes(pem) + middle.public_bytes(pem)
    key = leaf_key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    context = ssl.create_default_context(cadata=root.public_bytes(pem).decode())
    with (
        Server(data_dir=tmp_path, tls=TLSConfig(chain.decode(), key.decode())) as server,
        RawClient(server.url, context=context) as client,
    ):
        client.join()


class TestRenewal:
    @pytest.fixture
    def watched(self, pair: TLSConfig) -> "Watched":
        return Watched(pair)

    def test_new_files_are_taken_while_the_server_runs(
        self, server: Server, pair: TLSConfig, tmp_path: Path
    ) -> None:
        before = presented(server.port)
        renew(pair, tmp_path)

        running = server.aio
        assert running._front is not None
        assert running._front._certificates is not None
        running._front._certificates.look()

        assert presented(server.port) != before
        assert presented(server.port) == certificate(pair).serial_number
        assert 'amsync_tls_reloads_total{result="ok"} 1.0' in exposition(server)

    def test_untouched_files_are_read_once(self, watched: "Watched") -> None:
        watched.certificates.look()

        assert watched.reloads == []
        assert watched.expires == [watched.pair.expires_at()]

    def test_pair_that_does_not_match_leaves_the_old_one_in_use(
        self, watched: "Watched", tmp_path: Path
    ) -> None:
        old_key = Path(watched.pair.key).read_bytes()
        renew(watched.pair, tmp_path)
        new_key = Path(watched.pair.key).read_bytes()
        Path(watched.pair.key).write_bytes(old_key)

        watched.certificates.look()
        watched.certificates.look()  # it is tried again: perhaps the key is about to come
        assert watched.reloads == ["failed", "failed"]
        assert len(watched.expires) == 1
        Path(watched.pair.key).write_bytes(new_key)
        watched.certificates.look()

        assert watched.reloads == ["failed", "failed", "ok"]
        assert watched.expires[-1] == watched.pair.expires_at()

    def test_files_that_vanish_for_a_moment_are_taken_when_they_are_back(
        self, watched: "Watched"
    ) -> None:
        cert = Path(watched.pair.cert).read_bytes()
        Path(watched.pair.cert).unlink()
        watched.certificates.look()
        Path(watched.pair.cert).write_bytes(cert)

        watched.certificates.look()

        assert watched.reloads == ["failed", "ok"]


class Watched:
    """Certificates, and what they have said."""

    def __init__(self, pair: TLSConfig) -> None:
        self.pair = pair
        self.reloads: list[str] = []
        self.expires: list[float] = []
        self.certificates = Certificates(
            pair, reloaded=self.reloads.append, expires=self.expires.append
        )


def renew(pair: TLSConfig, tmp_path: Path) -> None:
    """Another certificate and key in the place of these."""
    new = write_cert(tmp_path / "renewed")
    for old, fresh in ((pair.cert, new.cert), (pair.key, new.key)):
        Path(fresh).replace(old)


def presented(port: int) -> int:
    """Serial number of the certificate that the server shows."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def exposition(server: Server) -> str:
    return server.aio.metrics.exposition()[0].decode()

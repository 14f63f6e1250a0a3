"""TLS to a server, spoken by one thread, as a plain socket.

`websockets.sync` reads and writes its socket in two threads. Python's TLS sockets can't stand that:
of connections over wss one in two hundred broke while it was opened.
"""

import contextlib
import selectors
import socket
import ssl
import threading

CHUNK_BYTES = 64 * 1024


def open_tunnel(host: str, port: int, context: ssl.SSLContext, seconds: float) -> socket.socket:
    """Shake hands, and return a socket that has the decrypted stream.

    It ends when either side does; closing it cuts the connection.

    Raises:
        OSError: No connection, or no TLS with a certificate that the context trusts.
    """
    raw = socket.create_connection((host, port), seconds)
    try:
        tls = context.wrap_socket(raw, server_hostname=host)
    except BaseException:
        raw.close()
        raise
    ours, theirs = socket.socketpair()
    tls.setblocking(False)
    threading.Thread(target=_relay, args=(tls, ours), name="tls tunnel", daemon=True).start()
    return theirs


def _relay(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    with tls, plain, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
        selector.register(tls, selectors.EVENT_READ)
        selector.register(plain, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is plain:
                    data = plain.recv(CHUNK_BYTES)
                    if not data or not _send(tls, data, plain):
                        return
            if not _receive(tls, plain):
                return


def _send(tls: ssl.SSLSocket, data: bytes, plain: socket.socket) -> bool:
    left = memoryview(data)
    while left:
        try:
            left = left[tls.send(left) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            # Whoever we send to may wait until we have read.
            if not _receive(tls, plain):
                return False
    return True


def _receive(tls: ssl.SSLSocket, plain: socket.socket) -> bool:
    """Pass on what is there, also what was decrypted already; False at the end."""
    while True:
        try:
            data = tls.recv(CHUNK_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        if not data:
            return False
        plain.sendall(data)

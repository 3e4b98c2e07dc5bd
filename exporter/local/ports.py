"""Checks and finds TCP ports on 127.0.0.1."""

from __future__ import annotations

import socket

_MAX_PORT = 65_535


def is_free(port: int) -> bool:
    """True if a server could listen on this port now; a port in TIME_WAIT counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def is_listening(port: int) -> bool:
    """True if a server accepts connections on this port now."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def find_free(count: int, *, neighbor_offset: int = 0) -> list[int]:
    """Returns `count` different free ports chosen by the operating system.

    With `neighbor_offset`, the port with the number `first port + neighbor_offset` is free as well.
    The ports are free when the function returns; another process may take one before the caller
    does.
    """
    # All sockets stay open until the last port is chosen, so that no port is returned twice.
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", 0))
            port: int = held[-1].getsockname()[1]
            neighbor = port + neighbor_offset
            if ports or not neighbor_offset or (neighbor <= _MAX_PORT and is_free(neighbor)):
                ports.append(port)
    finally:
        for one in held:
            one.close()
    return ports


def find_base() -> int:
    """Returns a base port for a stack: all ports that the stack derives from it are free.

    Tries 8800 to 48900 in steps of 100. Raises OSError if none of these will do.
    """
    for port in range(8800, 49_000, 100):
        if all(is_free(port + offset) for offset in (*range(30), 10_020)):
            return port
    raise OSError(
        "no free block of ports from 8800 to 49000 on 127.0.0.1: stop some of the servers there"
    )

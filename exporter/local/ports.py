"""TCP ports of 127.0.0.1."""

from __future__ import annotations

import socket

_LAST = 65_535


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now; a port in TIME_WAIT counts as free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this port now."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free(count: int, *, twin: int = 0) -> list[int]:
    """`count` different ports that nobody listens on, chosen by the system.

    With `twin`, the first one has a free neighbour that many ports above. They are free when this
    returns; another process may take one before you do.
    """
    # All are held open until the last is chosen, so that no port is given twice.
    held: list[socket.socket] = []
    ports: list[int] = []
    try:
        while len(ports) < count:
            held.append(socket.socket())
            held[-1].bind(("127.0.0.1", 0))
            port: int = held[-1].getsockname()[1]
            if ports or not twin or (port + twin <= _LAST and is_free(port + twin)):
                ports.append(port)
    finally:
        for one in held:
            one.close()
    return ports


def base() -> int:
    """A port for a whole stack: nobody listens on those that derive from it.

    OSError when there is none from 8800 to 49000 in steps of 100.
    """
    for port in range(8800, 49_000, 100):
        if all(is_free(port + offset) for offset in (*range(30), 10_020)):
            return port
    raise OSError("no free block of ports from 8800 to 49000: end some servers on 127.0.0.1")

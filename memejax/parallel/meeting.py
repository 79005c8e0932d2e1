"""Processes wait for each other before jax joins them.

jax ends a program by an abort where a process does not come, or comes with a number
that another one has. So they meet here first, on the same port: process 0 listens, the
others say which they are, and when all are there it lets them go.
"""

from __future__ import annotations

import contextlib
import socket
import time

_GO = b"go\n"
_PAUSE = 0.2


class ProcessError(ValueError):
    """Processes that cannot be started, or cannot do together what was asked for."""


def meet(coordinator: str, *, processes: int, process: int, timeout: int) -> None:
    """Returns when all processes are there; then the port is free again.

    Args:
      coordinator: "HOST:PORT".
      processes: how many there are, at least 2.
      process: which one this is.
      timeout: seconds to wait for the others.

    Raises:
      ProcessError: saying who did not come, or what else is wrong.
    """
    host, port = _address(coordinator)
    deadline = time.monotonic() + timeout
    if process:
        _come(host, port, f"{process} {processes}", deadline, timeout)
    else:
        _wait(port, processes, deadline, timeout)


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ProcessError(
            f"got --coordinator={coordinator}, expected HOST:PORT, as in 10.0.0.1:9876"
        )
    return host.strip("[]"), int(port)


def _wait(port: int, processes: int, deadline: float, timeout: int) -> None:
    """What process 0 does."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ProcessError(
            f"process 0 cannot listen on port {port}: {error.strerror}; choose another "
            "one in --coordinator"
        ) from error
    come: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        stack.enter_context(server)
        while len(come) < processes - 1:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                peer = stack.enter_context(server.accept()[0])
            except TimeoutError:
                absent = [str(i) for i in range(1, processes) if i not in come]
                raise ProcessError(
                    f"of {processes} processes these did not come in {timeout} s: "
                    f"{', '.join(absent)}"
                ) from None
            number = _greet(peer, processes, come)
            if number is not None:
                come[number] = peer
        for peer in come.values():
            with contextlib.suppress(OSError):
                peer.sendall(_GO)


def _greet(
    peer: socket.socket, processes: int, come: dict[int, socket.socket]
) -> int | None:
    """The number of a process that came; None for anybody else."""
    peer.settimeout(5)
    try:
        words = _line(peer).decode(errors="replace").split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            peer.close()
            return None
        number, of = map(int, words)
        wrong = None
        if of != processes:
            wrong = f"process {number} is one of {of}, process 0 one of {processes}"
        elif number in come or not 1 <= number < processes:
            wrong = f"there is a process {number} already"
        if wrong is not None:
            peer.sendall(f"{wrong}\n".encode())
            raise ProcessError(wrong)
    except OSError:
        return None
    return number


def _come(host: str, port: int, who: str, deadline: float, timeout: int) -> None:
    """What the other processes do."""
    with _connected(host, port, deadline, timeout) as peer:
        # Process 0 began to wait before this one could connect.
        peer.settimeout(timeout)
        try:
            peer.sendall(f"{who}\n".encode())
            answer = _line(peer)
        except OSError:
            answer = b""
    if answer != _GO:
        said = answer.decode(errors="replace").strip()
        raise ProcessError(
            f"the process at {host}:{port} did not go on"
            + (f": {said}" if said else "; see what it says")
        )


def _connected(host: str, port: int, deadline: float, timeout: int) -> socket.socket:
    """A connection to process 0, as soon as it listens."""
    while True:
        left = deadline - time.monotonic()
        try:
            peer = socket.create_connection((host, port), timeout=max(left, 0.01))
            # A port that nobody listens on may connect to itself.
            if peer.getsockname() != peer.getpeername():
                return peer
            peer.close()
        except socket.gaierror as error:
            raise ProcessError(
                f"--coordinator names an unknown host, {host}: {error.strerror}"
            ) from error
        except OSError:
            pass
        if left < _PAUSE:
            raise ProcessError(
                f"no process 0 answers at {host}:{port} after {timeout} s: is it "
                "started, and can this host reach it?"
            )
        time.sleep(_PAUSE)


def _line(peer: socket.socket) -> bytes:
    """What comes up to the end of a line, or of the connection; at most 200 bytes."""
    got = b""
    while not got.endswith(b"\n") and len(got) < 200:
        part = peer.recv(1)
        if not part:
            break
        got += part
    return got

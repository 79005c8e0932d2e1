"""Processes wait for each other before jax joins them.

jax ends a program by an abort where a process does not come, or comes with a number
that another one has. So they meet here first, on the same port: process 0 listens, the
others say which they are, and when all are there it lets them go.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

_GO = b"go\n"
_PAUSE = 0.2
# Bytes of a line; who says more is no process.
_LONGEST = 200


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
    with contextlib.closing(_Door(server, processes)) as door:
        while absent := door.absent():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            door.listen(left)
        else:
            absent = door.let_go()
    if absent:
        raise ProcessError(
            f"of {processes} processes these did not come in {timeout} s: "
            f"{', '.join(map(str, absent))}"
        )


class _Door:
    """Who is at the port of process 0: processes that came, and anybody else.

    All are heard at once: who connects and says nothing keeps nobody waiting.
    """

    def __init__(self, server: socket.socket, processes: int):
        self._server, self._processes = server, processes
        self._said: dict[socket.socket, bytes] = {}
        self._come: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        server.setblocking(False)
        self._selector.register(server, selectors.EVENT_READ)

    def absent(self) -> list[int]:
        """The processes that are not there, or not any more."""
        for peer in list(self._come.values()):
            self._is_there(peer)
        return [i for i in range(1, self._processes) if i not in self._come]

    def listen(self, seconds: float) -> None:
        """Hears who comes or says something; returns after the first that do."""
        for key, _ in self._selector.select(seconds):
            peer = key.fileobj
            if peer is self._server:
                self._open()
            elif isinstance(peer, socket.socket) and peer in self._said:
                if self._is_there(peer) and peer not in self._come.values():
                    self._greet(peer)

    def let_go(self) -> list[int]:
        """Tells all to go on; returns those that cannot be told."""
        lost = []
        for number, peer in self._come.items():
            try:
                peer.sendall(_GO)
            except OSError:
                lost.append(number)
        return lost

    def close(self) -> None:
        """Closes the port and every connection."""
        for peer in list(self._said):
            self._drop(peer)
        self._selector.close()
        self._server.close()

    def _open(self) -> None:
        # Who knocked may be gone again.
        with contextlib.suppress(OSError):
            peer = self._server.accept()[0]
            peer.setblocking(False)
            self._said[peer] = b""
            self._selector.register(peer, selectors.EVENT_READ)

    def _drop(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        del self._said[peer]
        self._come = {i: other for i, other in self._come.items() if other is not peer}
        peer.close()

    def _is_there(self, peer: socket.socket) -> bool:
        """Takes what a peer has said; drops one that is gone, or says too much."""
        try:
            while len(self._said[peer]) < _LONGEST and (part := peer.recv(_LONGEST)):
                self._said[peer] += part
        except BlockingIOError:
            return True
        except OSError:
            pass
        self._drop(peer)
        return False

    def _greet(self, peer: socket.socket) -> None:
        """Counts a process in when it has said which it is."""
        line, end, _ = self._said[peer].partition(b"\n")
        if not end:
            return
        words = line.decode(errors="replace").split()
        if len(words) != 2 or not all(word.isdecimal() for word in words):
            self._drop(peer)
            return
        number, of = map(int, words)
        wrong = None
        if of != self._processes:
            wrong = (
                f"process {number} is one of {of}, process 0 one of {self._processes}"
            )
        # One that ended and is started again takes its place.
        elif number not in self.absent():
            wrong = f"there is a process {number} already"
        if wrong is not None:
            with contextlib.suppress(OSError):
                peer.sendall(f"{wrong}\n".encode())
            raise ProcessError(wrong)
        self._come[number] = peer


def _come(host: str, port: int, who: str, deadline: float, timeout: int) -> None:
    """What the other processes do."""
    with _connected(host, port, deadline, timeout) as peer:
        # Process 0 began to wait before this one could connect.
        deadline = time.monotonic() + timeout
        try:
            peer.sendall(f"{who}\n".encode())
            answer = _line(peer, deadline)
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


def _line(peer: socket.socket, deadline: float) -> bytes:
    """What comes up to the end of a line, or of the connection; at most 200 bytes.

    Raises:
        TimeoutError: if it has not come by the deadline.
    """
    got = b""
    while not got.endswith(b"\n") and len(got) < _LONGEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        peer.settimeout(left)
        part = peer.recv(1)
        if not part:
            break
        got += part
    return got

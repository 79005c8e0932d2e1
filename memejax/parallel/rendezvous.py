"""Rendezvous of the processes before jax connects them.

jax aborts the program if a process does not arrive, or arrives with another's number.
So they meet here first, on the same port: process 0 listens, the others send their
number, and once all have arrived it releases them.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time

from memejax.errors import UserError

_GO = b"go\n"
_PAUSE = 0.2
# Maximum bytes of a line; a peer that sends more is not one of the processes.
_LONGEST = 200


class ProcessError(UserError):
    """Processes cannot be started, or cannot run this together."""


def rendezvous(coordinator: str, *, processes: int, process: int, timeout: int) -> None:
    """Wait until all processes have arrived; the port is free again afterwards.

    Args:
        coordinator: "HOST:PORT".
        processes: number of processes, at least 2.
        process: number of this process.
        timeout: seconds to wait for the others.

    Raises:
        ProcessError: if some do not arrive in time, which it lists, or for a wrong
            address or number.
    """
    host, port = _address(coordinator)
    deadline = time.monotonic() + timeout
    if process:
        _join(host, port, f"{process} {processes}", deadline, timeout)
    else:
        _serve(port, processes, deadline, timeout)


def _address(coordinator: str) -> tuple[str, int]:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ProcessError(
            f"got --coordinator={coordinator}, expected HOST:PORT, as in 10.0.0.1:9876"
        )
    return host.strip("[]"), int(port)


def _serve(port: int, processes: int, deadline: float, timeout: int) -> None:
    """Wait for the other processes, as process 0."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        listener = socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ProcessError(
            f"process 0 cannot listen on port {port}: {error.strerror}; choose another "
            "one in --coordinator"
        ) from error
    with contextlib.closing(_Server(listener, processes)) as server:
        while absent := server.absent():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            server.listen(left)
        else:
            absent = server.release()
    if absent:
        raise ProcessError(
            f"of {processes} processes these did not arrive within {timeout} s: "
            f"{', '.join(map(str, absent))}"
        )


class _Server:
    """Connections to the port of process 0, from processes and from anything else.

    All are read at once, so that a silent connection does not block the others.
    """

    def __init__(self, listener: socket.socket, processes: int):
        self._listener, self._processes = listener, processes
        self._received: dict[socket.socket, bytes] = {}
        self._arrived: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def absent(self) -> list[int]:
        """Return the processes that have not arrived, or have left again."""
        for peer in list(self._arrived.values()):
            self._receive(peer)
        return [i for i in range(1, self._processes) if i not in self._arrived]

    def listen(self, seconds: float) -> None:
        """Wait for connections or data, and handle the first that come."""
        for key, _ in self._selector.select(seconds):
            peer = key.fileobj
            if peer is self._listener:
                self._accept()
            elif isinstance(peer, socket.socket) and peer in self._received:
                if self._receive(peer) and peer not in self._arrived.values():
                    self._register(peer)

    def release(self) -> list[int]:
        """Tell all processes to continue; return those that cannot be reached."""
        lost = []
        for number, peer in self._arrived.items():
            try:
                peer.sendall(_GO)
            except OSError:
                lost.append(number)
        return lost

    def close(self) -> None:
        """Close the port and every connection."""
        for peer in list(self._received):
            self._drop(peer)
        self._selector.close()
        self._listener.close()

    def _accept(self) -> None:
        # The peer may have disconnected already.
        with contextlib.suppress(OSError):
            peer = self._listener.accept()[0]
            peer.setblocking(False)
            self._received[peer] = b""
            self._selector.register(peer, selectors.EVENT_READ)

    def _drop(self, peer: socket.socket) -> None:
        self._selector.unregister(peer)
        del self._received[peer]
        self._arrived = {
            i: other for i, other in self._arrived.items() if other is not peer
        }
        peer.close()

    def _receive(self, peer: socket.socket) -> bool:
        """Read from a peer; drop it if it is gone or sends too much."""
        try:
            while len(self._received[peer]) < _LONGEST and (
                part := peer.recv(_LONGEST)
            ):
                self._received[peer] += part
        except BlockingIOError:
            return True
        except OSError:
            pass
        self._drop(peer)
        return False

    def _register(self, peer: socket.socket) -> None:
        """Register a process once it has sent its number."""
        line, end, _ = self._received[peer].partition(b"\n")
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
        # A process that ended and was started again replaces its predecessor.
        elif number not in self.absent():
            wrong = f"there is a process {number} already"
        if wrong is not None:
            with contextlib.suppress(OSError):
                peer.sendall(f"{wrong}\n".encode())
            raise ProcessError(wrong)
        self._arrived[number] = peer


def _join(host: str, port: int, name: str, deadline: float, timeout: int) -> None:
    """Register at process 0 and wait for its release, as any other process."""
    with _connected(host, port, deadline, timeout) as peer:
        # Process 0 started to wait before this one could connect.
        deadline = time.monotonic() + timeout
        try:
            peer.sendall(f"{name}\n".encode())
            answer = _line(peer, deadline)
        except OSError:
            answer = b""
    if answer != _GO:
        reason = answer.decode(errors="replace").strip()
        raise ProcessError(
            f"the process at {host}:{port} did not continue"
            + (f": {reason}" if reason else "; see its output")
        )


def _connected(host: str, port: int, deadline: float, timeout: int) -> socket.socket:
    """Connect to process 0 as soon as it listens."""
    while True:
        left = deadline - time.monotonic()
        try:
            peer = socket.create_connection((host, port), timeout=max(left, 0.01))
            # Connecting to a port without a listener may connect it to itself.
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
    """Read to the end of a line or of the connection, at most 200 bytes.

    Raises:
        TimeoutError: if the line is not complete by the deadline.
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

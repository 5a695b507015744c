"""What a reader may not do while it reads: run code, start a process, write, open a connection, ask for memory.

The interpreter reports these actions as audit events. While the guard is on, each of them raises `Forbidden`, which
no ``except Exception`` of a reader can hide. A limit on the address space turns an allocation that no file of this
size justifies into a MemoryError; `outcome` looks for one behind the documented error as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from pmp_ref.errors import InputError

FORBIDDEN = (
    "compile",
    "exec",
    "os.",
    "pickle.find_class",
    "marshal.load",
    "shutil.",
    "socket.",
    "subprocess.",
    "ctypes.",
    "tempfile.",
    "pty.",
    "winreg.",
    "code.__new__",
)
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
CPU_SECONDS = 5.0  # an input takes a millisecond; computing time, so that a busy machine is no finding
VIRTUAL = getattr(signal, "ITIMER_VIRTUAL", None)  # not on Windows
ROOM = 2**29  # bytes of address space above what is in use; a fuzzed file has at most some 100 kB


class Forbidden(BaseException):
    """A reader did what no file may make it do."""


class Hang(BaseException):
    """An input took seconds of computing time."""


def _hang(*_: Any) -> None:
    raise Hang(f"more than {CPU_SECONDS} s of computing time")


class Guard:
    """The audit hook; installed once for each process (a hook cannot be taken away), on only inside `watching`."""

    def __init__(self) -> None:
        self.on = False
        sys.addaudithook(self)
        if VIRTUAL is not None:
            signal.signal(signal.SIGVTALRM, _hang)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        writes = event == "open" and len(arguments) > 2 and int(arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR) != 0
        if writes or (event.startswith(FORBIDDEN) and event not in HARMLESS):
            self.on = False
            raise Forbidden(f"{event} {str(arguments)[:200]}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """The guard is on, and the clock runs."""
        self.on = True
        if VIRTUAL is not None:
            signal.setitimer(VIRTUAL, CPU_SECONDS)
        try:
            yield
        finally:
            if VIRTUAL is not None:
                signal.setitimer(VIRTUAL, 0)
            self.on = False


@contextlib.contextmanager
def little_memory(room: int = ROOM) -> Iterator[None]:
    """At most ``room`` bytes of address space more than now; nothing where the platform has no such limit."""
    try:
        import resource

        with open("/proc/self/statm") as stream:
            now = int(stream.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(read: Callable[[], Any], guard: Guard) -> tuple[str, BaseException | None]:
    """("read" | "refused" | "FINDING", error) of one reading.

    A finding is any error that is not InputError, an InputError of more than one line, a MemoryError behind it, and
    whatever the guard forbids or the clock ends.
    """
    try:
        with guard.watching():
            read()
        return "read", None
    except InputError as error:
        behind: BaseException | None = error
        while behind is not None:
            if isinstance(behind, MemoryError):
                return "FINDING", error
            behind = behind.__context__
        return ("FINDING", error) if "\n" in str(error) or "\r" in str(error) else ("refused", None)
    except (Exception, Forbidden, Hang) as error:
        return "FINDING", error

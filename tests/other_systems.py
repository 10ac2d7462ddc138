"""Makes this process look to krrdistill like one on Windows or macOS, as far as a POSIX system can.

    python -c "import other_systems; other_systems.windows()" ...

What only POSIX or only Linux has is absent; everything else (paths, encodings, processes) stays that of this system.
"""

from __future__ import annotations

import builtins
import fcntl
import importlib
import os
import struct
import subprocess  # noqa: F401 - takes a system for Windows by the module msvcrt, when it is imported
import sys
import types
from collections.abc import Iterable
from typing import Any

POSIX_MODULES = (
    "crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty",
)  # fmt: skip
# What Python's documentation has on Unix only, as far as a program of this kind might want it.
POSIX_NAMES = {
    "os": (
        "O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG", "chown",
        "chroot", "copy_file_range", "fchdir", "fchmod", "fchown", "fork", "forkpty", "getegid", "geteuid", "getgid",
        "getgroups", "getloadavg", "getpgid", "getpriority", "getsid", "getuid", "killpg", "lchown", "lockf",
        "memfd_create", "mkfifo", "mknod", "nice", "openpty", "posix_fadvise", "posix_fallocate", "posix_spawn",
        "pread", "pwrite", "readv", "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield",
        "sendfile", "set_blocking", "setgid", "setpgid", "setpriority", "setsid", "setuid", "statvfs", "sysconf",
        "sysconf_names", "tcgetpgrp", "uname", "wait", "wait3", "wait4", "waitid", "writev",
    ),
    "signal": (
        "ITIMER_REAL", "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP",
        "SIGUSR1", "SIGUSR2", "SIGWINCH", "alarm", "getitimer", "pause", "pthread_kill", "pthread_sigmask",
        "setitimer", "siginterrupt", "sigpending", "sigtimedwait", "sigwait",
    ),
    "time": ("clock_getres", "clock_gettime", "clock_settime", "pthread_getcpuclockid", "tzset"),
}  # fmt: skip
LINUX_NAMES = {"os": ("sched_getaffinity", "sched_setaffinity", "memfd_create", "posix_fadvise", "posix_fallocate")}


def windows() -> None:
    """No module and no function that Windows lacks; ``msvcrt`` locks files as there."""
    sys.modules["msvcrt"] = _msvcrt()
    for name in POSIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment] # its import is a ModuleNotFoundError
    _hide(POSIX_NAMES)
    _hide_folders(("/proc", "/sys"))


def macos() -> None:
    """No /proc and no /sys, no affinity of processes, no number of free pages."""
    _hide(LINUX_NAMES, sysconf=_sysconf_of_macos)
    _hide_folders(("/proc", "/sys"))


def _sysconf_of_macos(name: str) -> int:
    if name == "SC_AVPHYS_PAGES":
        raise ValueError("unrecognized configuration name")
    return os.sysconf(name)


def _hide(names: dict[str, tuple[str, ...]], **replaced: Any) -> None:
    """The package's modules import these without the names; other packages, which ask for the system, see them all."""
    views = {}
    for module, absent in names.items():
        view = views[module] = types.ModuleType(module)
        real = importlib.import_module(module)
        view.__dict__.update({key: value for key, value in vars(real).items() if key not in absent})
    views["os"].__dict__.update(replaced)
    real_import = builtins.__import__

    def seen(name: str, asking: Any = None, *rest: Any, **keywords: Any) -> Any:
        if name in views and str((asking or {}).get("__name__", "")).partition(".")[0] == "krrdistill":
            return views[name]
        return real_import(name, asking, *rest, **keywords)

    builtins.__import__ = seen


def _hide_folders(folders: Iterable[str]) -> None:
    """The package's modules get a FileNotFoundError where they open or list what is in these."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], (str, bytes)):
            path = os.fsdecode(arguments[0])
            if any(path == folder or path.startswith(folder + "/") for folder in folders) and _the_package_asks():
                raise FileNotFoundError(2, "No such file or directory", path)

    sys.addaudithook(hook)


def _the_package_asks() -> bool:
    """Whether the nearest caller outside of the standard library is a module of the package."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None:
        asks = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if asks not in sys.stdlib_module_names:
            return asks == "krrdistill"
        frame = frame.f_back
    return False


def _msvcrt() -> types.ModuleType:
    """``locking`` as there: bytes from the current position on, for one open file and not for one process."""
    module = types.ModuleType("msvcrt")
    set_lock, write_lock, control = fcntl.F_OFD_SETLK, fcntl.F_WRLCK, fcntl.fcntl

    def locking(descriptor: int, mode: int, size: int) -> None:
        assert mode == module.LK_NBLCK
        try:
            control(descriptor, set_lock, struct.pack("hhqqi4x", write_lock, os.SEEK_CUR, 0, size, 0))
        except BlockingIOError as error:
            raise PermissionError(13, "Permission denied") from error

    module.__dict__.update(LK_NBLCK=2, locking=locking)
    return module

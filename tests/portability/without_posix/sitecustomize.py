"""Takes POSIX away from every Python process that has this folder on its PYTHONPATH: a stand-in for Windows.

Modules of the standard library that use what is taken away are loaded first; what Windows replaces is replaced.
"""

import asyncio
import importlib.abc
import logging.handlers  # noqa: F401
import os
import random  # noqa: F401
import shutil
import signal
import socket
import subprocess
import sys
import threading  # noqa: F401
from types import ModuleType
from typing import Any, NoReturn

MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop")
OS = """
    O_DIRECTORY O_NOFOLLOW O_NONBLOCK P_ALL WEXITED WNOHANG WNOWAIT chown chroot fchmod fchown fork forkpty geteuid
    getgid getgroups getloadavg getpgid getpgrp getsid getuid killpg lchown mkfifo nice openpty pidfd_open posix_spawn
    pread pwrite register_at_fork sched_getaffinity sched_setaffinity sendfile setpgid setpgrp setsid setuid statvfs
    sync sysconf uname wait wait3 wait4 waitid
"""
SIGNALS = """
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGIO SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGUSR1 SIGUSR2
    SIGWINCH alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigwait sigwaitinfo
"""
SOCKET = "AF_UNIX CMSG_LEN SCM_RIGHTS recv_fds send_fds"

_kill = signal.SIGKILL


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def refuse(*_: object, **__: object) -> NoReturn:
    raise NotImplementedError


def loopback_pair(*_: object) -> tuple[socket.socket, socket.socket]:
    """What `socket.socketpair` does on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _address = listener.accept()
    return ours, theirs


def checked_popen(init: Any) -> Any:
    def wrapped(self: subprocess.Popen[bytes], *args: Any, pass_fds: Any = (), **options: Any) -> None:
        assert not pass_fds, "pass_fds not supported on Windows."
        options.pop("process_group", None)
        init(self, *args, **options)

    return wrapped


sys.meta_path.insert(0, Absent())
for name in MODULES:
    sys.modules.pop(name, None)
for owner, names in ((os, OS), (signal, SIGNALS), (socket, SOCKET)):
    for name in names.split():
        if hasattr(owner, name):
            delattr(owner, name)
socket.socketpair = loopback_pair  # type: ignore[assignment]
subprocess.Popen.__init__ = checked_popen(subprocess.Popen.__init__)  # type: ignore[method-assign]
subprocess.Popen.kill = lambda self: self.send_signal(_kill)  # type: ignore[method-assign]
shutil._USE_CP_SENDFILE = False  # type: ignore[attr-defined]
asyncio.SelectorEventLoop.add_signal_handler = refuse  # type: ignore[method-assign]

locks = sys.modules["msvcrt"] = ModuleType("msvcrt")
locks.LK_NBLCK = 2  # type: ignore[attr-defined]
locks.locking = lambda handle, mode, count: os.lockf(handle, os.F_TLOCK, count)  # type: ignore[attr-defined]

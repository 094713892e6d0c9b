"""Process 1 of a container: reaps orphans and forwards signals, while its one child is the command itself.

The fork comes before any import that starts threads, so that the child begins with a clean copy. In a container without
an init, every process that loses its parent becomes a child of process 1, and stays a zombie until that one reaps it.
"""

from __future__ import annotations

import os
import signal
import sys


def continue_in_child() -> None:
    """As process 1, continue in a child and become its init; in any other process, do nothing."""
    if sys.platform == "linux" and os.getpid() == 1:
        supervise_child()


def supervise_child() -> None:
    """Fork. Return in the child; in the parent, exit with the child's code, or 128 plus the signal that ended it."""
    if sys.platform == "linux":
        crashes = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGTRAP}
        handled = signal.valid_signals() - crashes
        before = signal.pthread_sigmask(signal.SIG_BLOCK, handled)  # later signals wait for sigwaitinfo
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        while True:
            received = signal.sigwaitinfo(handled)
            if received.si_signo == signal.SIGCHLD:
                _reap(child)
            elif received.si_code <= 0:  # a process sent it; a terminal sends its signals to the child as well
                os.kill(child, received.si_signo)


def _reap(child: int) -> None:
    """Collect every process that has ended; exit with the child."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)

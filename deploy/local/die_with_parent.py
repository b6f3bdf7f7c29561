"""Becomes the given program, but one that the kernel kills when its parent dies, even by `kill -9`.

Run as a script between the parent and the program (`python -I -S die_with_parent.py PARENT_PID REPORT_FD program …`),
because the wish has to be stated by the child itself, and running Python code between fork and exec of a parent that
has threads can deadlock. The report is a pipe: closed without a word once the program runs, else with the reason. It
must stay stdlib-only and must never fork: the program keeps this process's id.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; kept across exec, see prctl(2)


def ask_to_die_with_parent() -> None:
    """From now on the kernel kills this process when the thread that forked it ends. Raises OSError if it cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    # SIGKILL, since a program that was paused (SIGSTOP) would never get round to handling SIGTERM.
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def main(parent_pid: int, report_fd: int, argv: list[str]) -> int:
    """Replace this process by `argv`. Returns an exit code only where that is not possible."""
    os.set_inheritable(report_fd, False)  # exec closes it
    try:
        ask_to_die_with_parent()
    except OSError as error:
        os.write(report_fd, f"prctl: {error.strerror}".encode())
        return 126
    if os.getppid() != parent_pid:  # it died before the wish was stated
        return 125
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # exec keeps ignored signals ignored, and Python ignores SIGPIPE
    try:
        os.execvp(argv[0], argv)  # noqa: S606 (no shell: that is the point)
    except OSError as error:
        os.write(report_fd, f"{argv[0]}: {error.strerror}".encode())
        return 127


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))

"""What makes the one file, which unpacks itself and then runs as two processes, behave as one program.

Runs inside the binary before anything of the agent. Problem: the file's first process unpacks libraries into a folder
below TMPDIR, starts the agent as its child, passes signals on to it and its exit code back, and removes the folder.
When that first process is killed, nobody passes anything on: the agent would run for ever beside the next one.

Guarantee: the agent is told to stop (SIGTERM) when its parent is gone, however it went, and then removes the folder
itself. Certificates of public authorities are found where the node's distribution keeps them, not where that of the
machine does on which the file was made.

Limits: when both processes are killed at once, the folder stays; whoever starts the agent cleans it, as the systemd
unit does.
"""

import atexit
import ctypes
import os
import shutil
import signal
import ssl
import sys

_PR_SET_PDEATHSIG = 1
_CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL, openEuler
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",
)


def _another_program(pid: int) -> bool:
    try:
        return not os.path.samefile(f"/proc/{pid}/exe", "/proc/self/exe")
    except OSError:  # hidden from us: not known to be another
        return False


def _follow_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    parent = os.getppid()
    if _another_program(parent):  # ours went before we asked to be told
        os.kill(os.getpid(), signal.SIGTERM)

    def remove_folder() -> None:
        if os.getppid() != parent:
            shutil.rmtree(sys._MEIPASS, ignore_errors=True)

    atexit.register(remove_folder)


def _find_certificates() -> None:
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        return
    paths = ssl.get_default_verify_paths()  # names only what is there
    if paths.cafile is None and not (paths.capath and os.listdir(paths.capath)):
        found = next((path for path in _CERTIFICATES if os.path.isfile(path)), None)
        if found is not None:
            os.environ["SSL_CERT_FILE"] = found


_follow_parent()
_find_certificates()

"""Files that appear whole or not at all, and operating system errors in words."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import BinaryIO

from onnx_rewrite.errors import ModelError


def explain_oserror(error: OSError, path: Path, doing: str) -> ModelError:
    """Turns an operating system error into one sentence with a way out."""
    reasons: dict[int | None, tuple[str, str | None]] = {
        errno.ENOENT: ("no such file or folder", "Check the path; folders are not created."),
        errno.EACCES: ("permission denied", "Choose another folder, or change its permissions."),
        errno.EPERM: ("permission denied", "Choose another folder, or change its permissions."),
        errno.EROFS: ("the file system is read-only", "Choose another folder."),
        errno.ENOSPC: ("the disk is full", "Free some space or choose another folder; nothing was written."),
        errno.EDQUOT: ("the disk quota is used up", "Free some space or choose another folder; nothing was written."),
        errno.EISDIR: ("it is a folder", "Give the name of a file."),
        errno.ENOTDIR: ("a part of the path is no folder", "Check the path."),
        errno.ENAMETOOLONG: ("the name is too long", None),
        errno.EPIPE: ("the reader closed the pipe", None),
    }
    reason, hint = reasons.get(error.errno, (error.strerror or str(error), None))
    return ModelError(f"cannot {doing} {path}: {reason}", hint=hint)


def check_output_folder(path: Path) -> None:
    """Refuses an output path that cannot be written, before any work is done.

    Raises:
        ModelError: When the folder does not exist or cannot be written, or the path is itself a folder, a device or a
            pipe: a file is replaced as a whole, which would destroy these.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ModelError(f"cannot write {path}: it is not a regular file", hint="Give the name of a file, or '-'.")
    if path.is_dir():
        raise ModelError(f"cannot write {path}: it is a folder", hint=f"Give a file name, such as {path / 'out.onnx'}.")
    folder = path.parent
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise ModelError(f"cannot write {path}: the folder {folder} {state}", hint="Create it first.")
    if not os.access(folder, os.W_OK):
        raise ModelError(
            f"cannot write {path}: the folder {folder} is read-only", hint="Choose another folder for the output."
        )


def write_atomically(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Writes a file so that it appears whole or not at all.

    The data goes to a temporary file in the same folder, which then takes the place of ``path`` in one step. On any
    failure, Ctrl-C included, the temporary file is removed and an old ``path`` is as it was. A symbolic link stays a
    link: the file that it points to is replaced.

    Raises:
        ModelError: When the operating system refuses (no space, no permission, no folder).
    """
    target = Path(os.path.realpath(path))
    temporary: Path | None = None
    try:
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=".tmp", dir=target.parent)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, _mode_for(target))
            os.replace(temporary, target)
            temporary = None
        except OSError as error:
            raise explain_oserror(error, path, "write") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


# ioctl of Linux (linux/fs.h): the target shares the source's blocks until one of them is written to.
_FICLONE = 0x40049409


def share_blocks(source: BinaryIO, target: BinaryIO) -> bool:
    """Makes an empty file a reflink of another; False where the system or the file system has none."""
    try:
        import fcntl

        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except (ImportError, OSError):
        return False
    return True


@contextlib.contextmanager
def removed_on_failure(paths: list[Path]) -> Generator[None, None, None]:
    """Removes the files and folders in ``paths`` (filled meanwhile) when the block ends badly, Ctrl-C included."""
    try:
        yield
    except BaseException:
        for path in reversed(paths):
            with contextlib.suppress(OSError):
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()
        raise


def same_file(first: Path, second: Path) -> bool:
    """Tells whether two paths lead to one file or folder; False when one of them does not exist."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return False


def same_content(first: Path, second: Path, chunk: int = 1 << 22) -> bool:
    """Compares two files byte by byte without loading them."""
    with open(first, "rb") as a, open(second, "rb") as b:
        if os.fstat(a.fileno()).st_size != os.fstat(b.fileno()).st_size:
            return False
        while True:
            left, right = a.read(chunk), b.read(chunk)
            if left != right:
                return False
            if not left:
                return True


def _mode_for(target: Path) -> int:
    """The permissions that the file has, or that a new one gets (mkstemp's own are for the owner alone)."""
    with contextlib.suppress(OSError):
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask

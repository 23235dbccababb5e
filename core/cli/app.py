"""Parses the arguments with cyclopts, runs the command, and turns every error into one message and a status."""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError

from onnx_rewrite.cli import EXIT_USAGE, STDIO_TOKEN, drop_output, fail
from onnx_rewrite.cli.commands import (
    bench,
    check,
    demo,
    diff,
    explain,
    extract,
    inspect,
    minimise,
    passes,
    plugins,
    rewrite,
    test,
)
from onnx_rewrite.errors import OnnxRewriteError

EXIT_INTERNAL = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE

COMMANDS: dict[str, Callable[..., int]] = {
    "passes": passes.passes,
    "inspect": inspect.inspect,
    "explain": explain.explain,
    "extract": extract.extract,
    "check": check.check,
    "diff": diff.diff,
    "bench": bench.bench,
    "test": test.test,
    "minimise": minimise.minimise,
    "demo": demo.demo,
    "plugins": plugins.plugins,
}


def build() -> App:
    """The application: `rewrite MODEL` is its default command. Help and version are not its business."""
    app = App(
        name="rewrite",
        help_flags=(),
        version_flags=(),
        default_parameter=Parameter(negative=()),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    app.default(rewrite.rewrite)
    for name, command in COMMANDS.items():
        app.command(command, name=name)
    return app


def run(arguments: Sequence[str]) -> int:
    """Runs the command that `arguments` name and returns the exit status of `onnx_rewrite.cli.main`."""
    # cyclopts takes "-" for an option without a name; no argument of a process can hold a NUL.
    tokens = [STDIO_TOKEN if token == "-" else token for token in arguments]
    try:
        status = int(build()(tokens, exit_on_error=False, print_error=False))
        sys.stdout.flush()
        return status
    except CycloptsError as error:
        message, hint = _usage(error, arguments)
        return fail(message, hint, EXIT_USAGE)
    except OnnxRewriteError as error:
        return fail(str(error), error.hint, error.exit_code)
    except KeyboardInterrupt:
        return fail("interrupted; no partial file was left", None, EXIT_INTERRUPTED)
    except BrokenPipeError:
        drop_output()
        return EXIT_BROKEN_PIPE
    except OSError as error:
        drop_output()
        name = f": {error.filename}" if error.filename else ""
        return fail(f"{error.strerror or error}{name}", None, EXIT_USAGE)
    except MemoryError:
        return fail("out of memory", "--verify local needs less memory than --verify full", EXIT_USAGE)
    except Exception as error:
        if os.environ.get("ONNX_REWRITE_DEBUG") == "1":
            raise
        return fail(*_internal(error), EXIT_INTERNAL)


def _usage(error: CycloptsError, arguments: Sequence[str]) -> tuple[str, str]:
    message = " ".join(str(error).split()).replace(STDIO_TOKEN, "-")
    command = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    hint = f"see `rewrite {command} --help`" if command else "see `rewrite --help`"
    if isinstance(error, UnusedCliTokensError):
        extra = " ".join(error.unused_tokens or ())
        message = f"unexpected argument: {extra}".replace(STDIO_TOKEN, "-")
        near = difflib.get_close_matches(arguments[0], COMMANDS, n=1) if not command else []
        if near:
            message = f"unknown command: {arguments[0]}"
            hint = f"did you mean `rewrite {near[0]}`? Else {hint}"
    return message[:1].lower() + message[1:], hint


def _internal(error: Exception) -> tuple[str, str]:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{os.path.basename(os.path.dirname(frame.filename))}/{os.path.basename(frame.filename)}:{frame.lineno}"
    message = f"internal error: {type(error).__name__}: {error} (at {place})"
    hint = "please report this, with the command and if possible the model; ONNX_REWRITE_DEBUG=1 shows the traceback"
    return message, hint

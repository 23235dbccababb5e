"""A process that lives on and answers requests: one peer, or the judge. A crash of it is no crash of ours.

A request is a line of JSON and then bytes: `{"sizes": [...], ...}`, one size per model. So is an answer, whose line
has "error" where something was raised. Whatever a peer prints goes nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import onnx

MEMORY = 6 << 30
"""Bytes of address space that a child may have."""

Handler = Callable[[dict[str, Any], list[onnx.ModelProto]], "tuple[dict[str, Any], list[onnx.ModelProto]]"]


def write(stream: BinaryIO, line: dict[str, Any], blobs: Sequence[bytes]) -> None:
    stream.write(json.dumps({**line, "sizes": [len(b) for b in blobs]}).encode() + b"\n")
    for blob in blobs:
        stream.write(blob)
    stream.flush()


def handler_of(name: str) -> Handler:
    """What answers: the judge, or a peer by its name."""
    if name == "judge":
        from benchmarks.peers_fuzz.judging import examine

        return examine
    if ":" in name:  # a module and a function: a peer of a test
        import importlib

        module, _, function = name.partition(":")
        run = getattr(importlib.import_module(module), function)()
    else:
        from benchmarks.peers_fuzz.adapters import ADAPTERS

        run = ADAPTERS[name]()

    def answer(request: dict[str, Any], models: list[onnx.ModelProto]) -> Any:
        (model,) = models
        before = model.SerializeToString(deterministic=True)
        began = time.process_time()
        made, notes = run(model, request.get("rule", {}))
        notes["cpu"] = time.process_time() - began
        notes["input changed"] = model.SerializeToString(deterministic=True) != before
        return notes, [made]

    return answer


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        handler = handler_of(name)
    except ImportError as error:
        write(answers, {"missing": f"{error}"}, [])
        return
    # Imports take seconds, and a peer may crash on every tenth graph: what answers is a copy of this process.
    while hasattr(os, "fork"):
        servant = os.fork()
        if servant == 0:
            break
        _, status = os.waitpid(servant, 0)
        if status == 0:
            return
        write(answers, {"died": os.waitstatus_to_exitcode(status)}, [])
    write(answers, {"ready": os.getpid()}, [])
    serve(handler, answers)


def serve(handler: Handler, answers: BinaryIO) -> None:
    """Answers until there are no more requests."""
    requests = sys.stdin.buffer
    while line := requests.readline():
        request = json.loads(line)
        models = [onnx.ModelProto.FromString(requests.read(size)) for size in request["sizes"]]
        try:
            notes, made = handler(request, models)
            write(answers, notes, [m.SerializeToString(deterministic=True) for m in made])
        except Exception as error:
            write(answers, {"error": f"{type(error).__name__}: {str(error).strip()[:600]}"}, [])


if __name__ == "__main__":
    main(sys.argv[1])

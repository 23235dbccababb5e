"""Whether onnxruntime's own optimiser takes a model that its plain executor runs."""

from __future__ import annotations

import re

import onnx

from onnx_rewrite.verify.session import Session, Unsupported, first_line

# How onnxruntime's messages name a node.
_NODE = re.compile(r"Name:\s*'([^']+)'|[Nn]ode\s*\(?'?\(?([\w./:-]+)\)?'?")


def optimiser_fault(model: onnx.ModelProto, folder: str | None = None) -> str | None:
    """Why onnxruntime cannot open a model with ORT_ENABLE_ALL though it can with ORT_DISABLE_ALL; None if it can.

    A model that it cannot open at all has been reported by the judge already.
    """
    try:
        Session(model, optimise=True, folder=folder)
    except Unsupported:
        return None
    except Exception as error:
        try:
            Session(model, folder=folder)
        except Exception:
            return None
        words = first_line(error)
        names = {node.name for node in model.graph.node if node.name}
        found = next((n for groups in _NODE.findall(words) for n in groups if n in names), None)
        at = f" at node '{found}'" if found else ""
        return (
            "onnxruntime opens the result without its optimisations, and fails with them (ORT_ENABLE_ALL)"
            f"{at}: {words}; the fault is its optimiser's"
        )
    return None

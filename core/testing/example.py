"""One drawn model, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import onnx
from onnx import printer

from onnx_rewrite.testing.draft import Draft
from onnx_rewrite.testing.renaming import disguised
from onnx_rewrite.testing.subject import Outcome, Subject


@dataclass(eq=False)
class Example:
    """One drawn model. Printed, it is ONNX's text form.

    Attributes:
        model: The model.
        subject: The pass that it was drawn for.
        story: What is special about it, in words: the mutation, the container, the number of copies.
        instances: How many instances of the pattern it holds; 0 where that is not known.
        draft: What it was made from; None for one that was read from a file.
        container: Where its nodes stand: one of `containers.CONTAINERS`.
        elsewhere: Where else they are to be tried.
    """

    model: onnx.ModelProto
    subject: Subject
    story: tuple[str, ...] = ()
    instances: int = 0
    draft: Draft | None = field(default=None, repr=False)
    container: str = "main"
    elsewhere: str = "If"

    @property
    def outcome(self) -> Outcome:
        """What the pass makes of it, without a judge. Raises whatever the pass raises."""
        found = self._found
        if isinstance(found, Exception):
            raise found
        return found

    @cached_property
    def _found(self) -> Outcome | Exception:
        try:
            return self.subject.run(self.model)
        except Exception as error:
            return error

    @cached_property
    def disguised(self) -> Outcome:
        """What the pass makes of the model under other names, in another order, with notes on its nodes."""
        return self.subject.run(disguised(self.model))

    @property
    def raises(self) -> bool:
        """Whether the pass raises."""
        return isinstance(self._found, Exception)

    @property
    def fires(self) -> bool:
        """Whether something is replaced, or the pass raises, which is for a property to say."""
        return isinstance(self._found, Exception) or self._found.applied > 0

    def __repr__(self) -> str:
        return text_of(self.model, self.story)


def text_of(model: onnx.ModelProto, story: tuple[str, ...] = ()) -> str:
    """A model in ONNX's text form, after a line that tells what is special about it."""
    told = f"# {', '.join(story)}\n" if story else ""
    return f"\n{told}{printer.to_text(model).strip()}\n"

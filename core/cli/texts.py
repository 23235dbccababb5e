"""What `--help` prints.

Written out here and not made from the commands, so that help needs no import of the libraries that parse them;
a test compares the options of these texts with those of the commands.
"""

from __future__ import annotations

import os
import re
from typing import TextIO

REWRITE = """\
Rewrites an ONNX model, and checks every single replacement where it happened.

Usage: rewrite MODEL [options]
       rewrite COMMAND [arguments]

Commands:
  passes [NAME]          lists the passes, or describes one with its options
  inspect MODEL          what a model is made of, and what every pass would find
  check A B              judges whether two models compute the same
  demo                   a guided run on a model that ships with this program

  A model that bears the name of a command is given with its folder: ./passes

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input

What is done:
  --passes LIST          passes in the order in which they run, with options:
                         ln,clip,bn or mypass:depth=2,clip
                         (default: all built-in ones; see `rewrite passes`)
  --target TARGET        who will run the result, which a pass may choose its
                         replacement by: onnx, onnxruntime, tensorrt-8.6,
                         tensorrt-10, tensorrt-11, tensorrt-rtx (default: onnx)
  --opset keep|N         how far the model's opset may be raised for a pass that
                         needs a newer one: not at all, or to N at most
                         (default: as far as a pass needs)
  --only SITE            replaces nothing but these sites: an id such as ln[3],
                         or a regular expression on node names; repeatable
  --skip SITE            leaves these sites alone; repeatable

How it is verified:
  --verify HOW           full: every site, then the whole model; local: every
                         site; off: nothing (default: full)
  --inputs F             inputs for the whole model: a .npz file, or a folder of
                         test_data_set_N (default: drawn at random)
  --shape NAME=DIMS      shape of an input with dynamic dimensions, as in
                         --shape x=1,3,224,224; repeatable
  --accept inconclusive  keeps replacements that could not be judged either way
  --strict               fails if anything was rolled back or not verified
  --seed N               of the random inputs (default: 0)

What is written:
  -o, --output OUT       the rewritten model; - is standard output
                         (default: NAME.rewritten.onnx beside NAME.onnx)
  --in-place             overwrites MODEL
  --dry-run              writes no model
  --report F             what was done, as .json (for programs) or .html
  --verbose              lists every site
  --quiet                prints nothing but warnings and errors

  -h, --help             this text
  --version              the version

Exit status:
  0    done; what was not verified is said in a warning
  1    not equivalent, or --strict and not everything was verified; no model is
       written
  2    bad usage, an unreadable or invalid model, an unknown pass
  70   an error in this program (ONNX_REWRITE_DEBUG=1 shows where)
  130  interrupted

Examples:
  rewrite model.onnx
  rewrite model.onnx --passes ln,clip -o fused.onnx --report fused.html
  rewrite model.onnx --shape input=1,3,224,224 --inputs samples.npz --strict
  rewrite model.onnx --only 'ln[3]' --dry-run
  cat model.onnx | rewrite - --passes bn -o - > folded.onnx
"""

PASSES = """\
Lists the passes: what each does, the opset it needs, and its options.

Usage: rewrite passes [NAME] [--json]

Arguments:
  NAME                   describes this pass alone, in full

  --json                 prints JSON
  -h, --help             this text

Examples:
  rewrite passes
  rewrite passes ln
"""

INSPECT = """\
Shows what a model is made of: inputs, outputs, opsets, operators, parameters,
and how many sites every pass would find. The model is not changed.

Usage: rewrite inspect MODEL [--passes LIST] [--json]

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input

  --passes LIST          counts the sites of these passes (default: all)
  --json                 prints JSON
  -h, --help             this text

Examples:
  rewrite inspect model.onnx
  rewrite inspect model.onnx --passes ln --json
"""

CHECK = """\
Judges whether model B computes what model A computes: B may be as far from A
in float64 as A's own rounding allows, and no further.

Usage: rewrite check A B [options]

Arguments:
  A, B                   two models with the same inputs and outputs

  --inputs F             inputs: a .npz file, or a folder of test_data_set_N
                         (default: drawn at random)
  --shape NAME=DIMS      shape of an input with dynamic dimensions; repeatable
  --seed N               of the random inputs (default: 0)
  --json                 prints JSON
  -h, --help             this text

Exit status: 0 equivalent; 1 different, inconclusive or not verified; 2 bad
usage or an unreadable model.

Examples:
  rewrite check model.onnx model.rewritten.onnx
  rewrite check before.onnx after.onnx --inputs samples.npz
"""

DEMO = """\
Rewrites a small model that ships with this program and explains what it shows:
what was found and where, how each replacement was judged, what to try next.

Usage: rewrite demo [--dir DIR]

  --dir DIR              works in this folder, which is made if need be
                         (default: a new one where temporary files go)
  --verbose              lists every site
  -h, --help             this text

Examples:
  rewrite demo
  rewrite demo --dir demo
"""

BY_COMMAND = {"": REWRITE, "passes": PASSES, "inspect": INSPECT, "check": CHECK, "demo": DEMO}


def show(command: str, out: TextIO) -> None:
    """Prints the help of a command, or that of the program if `command` is not the name of one."""
    text = BY_COMMAND.get(command, REWRITE)
    if out.isatty() and "NO_COLOR" not in os.environ and os.name == "posix":
        text = re.sub(r"^(\S.*:)$", "\033[1m\\1\033[0m", text, flags=re.MULTILINE)
    out.write(text)
    out.flush()

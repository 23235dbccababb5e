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
  explain MODEL PASS     why a pass does not fire where it nearly would
  extract MODEL          a part of a model as a model of its own
  check A B              judges whether two models compute the same
  diff A B               what changed between two models
  bench MODEL            builds and runs engines of a model, or of two in turn
  test PASS              draws graphs and looks for one on which a pass is wrong
  minimise MODEL         the smallest model that still shows a failure
  plugins [build]        lists the plugins for TensorRT, or builds them
  demo                   a guided run on a model that ships with this program

  A model that bears the name of a command is given with its folder: ./passes

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input

What is done:
  --passes LIST          passes in the order in which they run, with options:
                         ln,clip,bn or mypass:depth=2,clip
                         (default: bn,clip,deform-conv,ln; `rewrite passes`
                         has them all)
  --target TARGET        who will run the result, which a pass may choose its
                         replacement by: onnx, onnxruntime, tensorrt-8.6,
                         tensorrt-10, tensorrt-11, tensorrt-rtx (default: onnx)
  --opset keep|N         how far the model's opset may be raised for a pass that
                         needs a newer one: not at all, or to N at most
                         (default: as far as a pass needs)
  --adapters FILE        a table (JSON, or TOML from Python 3.11 on) of how an
                         exporter writes a custom operator, beside those that
                         are known; repeatable; see plugins/README.md
  --only SITE            replaces nothing but these sites: an id such as ln[3],
                         or a regular expression on node names; repeatable
  --skip SITE            leaves these sites alone; repeatable

How it is verified:
  --verify HOW           full: every site, then the whole model; local: every
                         site; off: nothing (default: full)
  --inputs F             inputs for the whole model: a .npz file, or a folder of
                         test_data_set_N (default: drawn at random); every site
                         is judged on what flows into it then, too
  --shape NAME=DIMS      shape of an input with dynamic dimensions, as in
                         --shape x=1,3,224,224; repeatable
  --accept inconclusive  keeps replacements that could not be judged either way
  --strict               fails if anything was rolled back or not verified
  --seed N               of the random inputs (default: 0)
  --feeds N              random inputs per site (default: about a dozen, of all
                         kinds: tiny, large, integers, NaN, infinities, ...)

How it is measured:
  --bench ENGINES        builds engines of the model before and after, runs them
                         in turn where this machine can, and compares: a list
                         of onnxruntime, tensorrt-rtx, tensorrt; or auto: those
                         that this machine has

What is written:
  -o, --output OUT       the rewritten model; - is standard output
                         (default: NAME.rewritten.onnx beside NAME.onnx)
  --in-place             overwrites MODEL
  --external-data HOW    weights in files of their own: keep refers to them, and
                         copies them where it cannot; link writes no byte of
                         them, or fails; copy writes new files (default: keep)
  --dry-run              writes no model
  --report F             what was done, as .json (for programs) or .html
  --print-between-passes DIR
                         writes the model after every turn of a pass that
                         changed it: DIR/00.input.onnx, DIR/01.ln.onnx, ...
  --time-passes          tells what each pass took to match, apply and verify
  --verbose              lists every site
  --quiet                prints nothing but warnings and errors

  -h, --help             this text
  --version              the version

Exit status:
  0    done; what was not verified is said in a warning
  1    not equivalent, or --strict and not everything was verified; no model is
       written
  2    bad usage, an unreadable or invalid model, an unknown pass, an engine
       that was named and is not available
  70   an error in this program (ONNX_REWRITE_DEBUG=1 shows where)
  130  interrupted

Examples:
  rewrite model.onnx
  rewrite model.onnx --passes ln,clip -o fused.onnx --report fused.html
  rewrite model.onnx --shape input=1,3,224,224 --inputs samples.npz --strict
  rewrite model.onnx --only 'ln[3]' --dry-run
  rewrite model.onnx --bench onnxruntime,tensorrt-rtx
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

EXPLAIN = """\
Tells where a pass would fire and where it nearly would: how much of its
pattern stands there, the first thing that failed, and what would help. The
closest come first. Nothing is changed.

Usage: rewrite explain MODEL PASS [--node N] [--json]

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input
  PASS                   one pass, with options as in --passes

  --node N               only attempts that came as far as this node; a value
                         stands for the node that gives it
  --target TARGET        for whom the model would be rewritten (default: onnx)
  --adapters FILE        as for `rewrite MODEL`
  --all                  shows all near misses, not only the twelve closest
  --json                 prints JSON: found, near, absent
  -h, --help             this text

Examples:
  rewrite explain model.onnx ln
  rewrite explain model.onnx ln --node /encoder/norm/ReduceMean_1
"""

EXTRACT = """\
Writes a part of a model as a model of its own: the nodes between some values
and others, or those of one site. Names, types and weights stay as they are.

Usage: rewrite extract MODEL --from A,B --to C [-o OUT]
       rewrite extract MODEL --match SITE [-o OUT]

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input

  --from NAMES           values that become the inputs, separated by commas;
                         repeatable (default: the model's inputs). A model input
                         that is needed besides stays one, which is said.
  --to NAMES             values that become the outputs; repeatable (default:
                         the model's outputs that depend on --from)
  --match SITE           the nodes of a site, such as ln[3], instead
  --passes LIST          with --match: the passes of the run that numbered the
                         site (default: its pass alone)
  -o, --output OUT       the part; - is standard output
                         (default: NAME.extracted.onnx beside NAME.onnx)
  -h, --help             this text

Examples:
  rewrite extract model.onnx --from /blocks.0/Add_output_0 --to logits
  rewrite extract model.onnx --to /stem/Conv_output_0 -o stem.onnx
  rewrite extract model.onnx --match 'ln[3]'
"""

CHECK = """\
Judges whether model B computes what model A computes: B may be as far from A
in float64 as A's own rounding allows, and no further. Shows how far apart they
are, output by output, and where the difference begins.

Usage: rewrite check A B [options]

Arguments:
  A, B                   two models; A is the reference; - is standard input

What is compared:
  --by-position          inputs and outputs belong together by their order, not
                         by their names
  --outputs NAMES        these outputs only, or values inside both models, by
                         A's names, separated by commas; repeatable
  --layerwise            also every value that both models have, and the first
                         one whose error is beyond its bound
  --adapters FILE        as for `rewrite MODEL`

On what:
  --inputs F             inputs: a .npz file, or a folder of test_data_set_N
                         (default: drawn at random)
  --shape NAME=DIMS      shape of an input with dynamic dimensions; repeatable
  --feeds N              how many inputs are drawn (default: 3, and one more of
                         other sizes where dimensions are dynamic)
  --seed N               of the random inputs (default: 0)

By what:
  --metric LIST          measures to show, of abs, mean, rel, ulp, psnr, cosine,
                         top-1 (default: abs,mean,rel)
  --threshold METRIC=N   the verdict is whether every output keeps to this, and
                         not the judge's; psnr, cosine and top-1 are lower
                         bounds, the others upper ones; repeatable. Without it
                         models of different float types are only measured.

What is written:
  --report F             everything, as .json (for programs) or .html with plots
  --json                 prints JSON
  -h, --help             this text

Exit status: 0 equivalent; 1 different, inconclusive or not verified; 2 bad
usage, an unreadable model, or models that do not belong together.

Examples:
  rewrite check model.onnx model.rewritten.onnx
  rewrite check before.onnx after.onnx --inputs samples.npz --report check.html
  rewrite check torch.onnx tf.onnx --by-position --metric ulp,cosine
  rewrite check fp32.onnx fp16.onnx --threshold cosine=0.999 --layerwise
"""

BENCH = """\
Builds engines of a model, runs them where this machine can, and prints latency,
throughput, layers, size, build time, and the error against onnxruntime in fp32
with optimisations off. Two models are run in turn. Times are trtexec's: on a
GPU its own time by CUDA events, as one CUDA graph, without transfers.

Usage: rewrite bench MODEL [--compare BEFORE] [options]
       rewrite bench --log F

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json; - is standard input

What is built:
  --compare BEFORE       the model that MODEL is compared with
  --engines LIST         of onnxruntime, tensorrt, tensorrt-rtx (run on a GPU
                         that it supports, else built ahead of time and not
                         run); or auto (default): those that this machine has.
                         Options of one engine follow it after colons:
                         tensorrt:fp16:level=3:tactic-sources=cublas+cudnn
  --precision LIST       fp32, tf32, fp16, bf16, int8, fp8: an engine for each;
                         fp16+int8 allows both (default: what the model says).
                         Where a library has no such flags, the model's types
                         are its precision.
  --shape NAME=DIMS      shape of an input with dynamic dimensions, or the
                         smallest, best and largest one: x=1,3:8,3:32,3;
                         repeatable
  --workspace N          MiB of scratch memory
  --level N              optimization level, 0 to 5
  --tactic-sources LIST  cublas, cublas_lt, cudnn, edge_mask_convolutions,
                         jit_convolutions
  --timing-cache F       timings of tactics, read and added to
  --hardware-compatibility HOW
                         none, ampere+ or same
  --compute-capability SM
                         what tensorrt-rtx builds ahead of time for: SM86, SM89,
                         SM120, ...; SM86+SM89: one engine for both
  --plugin LIB           a library of plugins; repeatable
  --cache on|off         off: builds anew, and keeps no engine (default: on)

How it is timed:
  --inputs F             inputs: a .npz file, or a folder of test_data_set_N;
                         the first is timed (default: one drawn at random)
  --seed N               of the random inputs (default: 0)
  --duration S           seconds (default: 3 on a GPU, 1 elsewhere)
  --iterations N         at least so many inferences (default: 10)
  --warmup MS            milliseconds that do not count (default: 200)
  --streams N            inferences side by side (default: 1)
  --cuda-graph on|off    off: launches kernels one by one (default: on)
  --transfers            copies inputs and outputs in every inference

What is shown and written:
  --profile              the layers that take longest, with the ONNX nodes in
                         them, from a run of its own
  --where NODE           the layers that an ONNX node went to, and what it was
                         fused with; repeatable
  --export-times F       in trtexec's formats; of two models, the files are
  --export-profile F     F.before and F.after
  --export-layers F
  --export-outputs F
  --export-engine F      the serialized engine, for trtexec --loadEngine or a
                         runtime of yours
  --export-log F         the verbose log of the builds
  --log F                analyses a verbose log of trtexec (8.6 to 11) or of
                         --export-log: fusions, tactics, reformats, memory
  --nsys F               runs all this under Nsight Systems, which writes F
  --json                 prints JSON
  -h, --help             this text

Exit status: 0 every engine was built; 1 one could not be built, and why is in
the output; 2 bad usage, an unreadable model, or an engine that was named and is
not available.

Examples:
  rewrite bench model.onnx --shape input=1,3,224,224
  rewrite bench model.rewritten.onnx --compare model.onnx
  rewrite bench model.onnx --engines tensorrt --precision fp32,fp16 --profile
  rewrite bench model.onnx --engines tensorrt-rtx --json
"""

DIFF = """\
Shows what changed from model A to model B: opsets, inputs and outputs, nodes,
weights, functions, metadata; and which pass replaced what, where it recorded
that. Whether the two compute the same is for `rewrite check`.

Usage: rewrite diff A B [options]

Arguments:
  A, B                   two models; one of them may be - (standard input)

  --all                  lists everything; else the first of many
  --json                 prints JSON, with everything
  -h, --help             this text

Nodes are paired by the names of what they give, then by their own names.

Exit status: 0 the same, 1 different (as diff has it), 2 bad usage or an
unreadable model. "identical": the same bytes. "the same": no more than the
order of nodes, the encoding of numbers or the place of weights differs.

Examples:
  rewrite diff model.onnx model.rewritten.onnx
  rewrite diff a.onnx b.onnx --all
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

TEST = """\
Tests a pass on drawn graphs: instances of its own pattern, alone, embedded in
random graphs, and with one thing changed. A failing one is made small, shown
and saved. Needs the extra: pip install 'onnx-rewrite[testing]'

Usage: rewrite test PASS [options]

Arguments:
  PASS                   a pass, with options as in --passes

  --examples N           examples per property (default: 100)
  --seed N               of the examples (default: 0)
  --property NAME        only this property
  --jobs N               processes (default: one per processor from 50 examples
                         on); what is drawn and found does not depend on it
  --declare NAME=REASON  what is relaxed, as in a suite: a property that is not
                         tested, a mutation that is still legal, 'nan' for NaN
                         elsewhere; or fires_at_least=SHARE of the instances
                         that are replaced (default: 0.5). May be repeated
  --save DIR             folder of failing examples
                         (default: .onnx_rewrite/failures)
  -h, --help             this text

Exit status: 0 every property holds; 1 one does not; 2 bad usage.

Examples:
  rewrite test ln
  rewrite test clip --examples 10000 --seed 7
  rewrite test mine --declare 'bounds reversed=both give the upper one'
"""

MINIMISE = """\
Reduces a model to the smallest that still shows a failure: nodes, outputs,
bodies, functions, dimensions, constants, attributes and words are taken away
as long as a command says that the failure is still there.

Usage: rewrite minimise MODEL --check CMD [-o OUT]

Arguments:
  MODEL                  .onnx, .onnxtxt, .textproto, .json

  --check CMD            run on every candidate, without a shell; the path of
                         the candidate stands for {} in it, or is the last
                         argument. Status 0 says that it shows the failure
  --status N|same        the status that says so instead; 'same': the one that
                         MODEL itself gives, such as that of a crash
  --says TEXT            and it prints this, on standard output or error
  -o, --output OUT       the reduced model (default: NAME.minimal.onnx); written
                         at the end, whole or not at all
  --seconds N            stops after N seconds with the smallest found so far
  --timeout N            seconds for one run of the command, whose status is 124
                         if it takes longer (default: 60)
  -h, --help             this text

The command gets models that the checker accepts, each in the same file of a
temporary folder, with its weights in it (beside it above 2 GB). The same MODEL
and a command that answers alike give the same result.

Examples:
  rewrite minimise model.onnx --check './shows.sh'
  rewrite minimise model.onnx --check 'python fails.py {} --quiet' --status 1
  rewrite minimise model.onnx --check 'trtexec --onnx={}' --status same
"""

PLUGINS = """\
Lists the plugins for TensorRT that ship with this program, or builds them.

Usage: rewrite plugins [list] [NAME ...] [--json]
       rewrite plugins build [NAME ...] [options]

  --tensorrt-include DIR
                         the folder with NvInferRuntime.h of the TensorRT that
                         the plugin is for (default: TENSORRT_INCLUDE_DIR, or
                         where packages install it)
  --arch ARCH            a GPU to build for, such as sm_80 or sm_90a; repeatable
                         (default: this machine's; else sm_75 to sm_120)
  -o, --output DIR       the folder for the library; without it the library goes
                         where `rewrite bench` and `--bench` find it
  --json                 prints JSON
  -h, --help             this text

nvcc is needed (on PATH, or in CUDA_HOME), and TensorRT's headers; no library.
Without nvcc, TensorRT 10, 11 and TensorRT-RTX take those plugins of which the
list says "at run time": pip install 'onnx-rewrite[compile]' is all.

Exit status: 0 done; 2 bad usage, or no compiler, headers or success.

Examples:
  rewrite plugins
  rewrite plugins build deform_conv --tensorrt-include TensorRT/include
  trtexec --onnx=model.onnx --staticPlugins=libonnx_rewrite_deform_conv.so
"""

BY_COMMAND = {
    "": REWRITE,
    "passes": PASSES,
    "inspect": INSPECT,
    "explain": EXPLAIN,
    "extract": EXTRACT,
    "check": CHECK,
    "diff": DIFF,
    "bench": BENCH,
    "demo": DEMO,
    "test": TEST,
    "minimise": MINIMISE,
    "plugins": PLUGINS,
}


def show(command: str, out: TextIO) -> None:
    """Prints the help of a command, or that of the program if `command` is not the name of one."""
    text = BY_COMMAND.get(command, REWRITE)
    if out.isatty() and "NO_COLOR" not in os.environ and os.name == "posix":
        text = re.sub(r"^(\S.*:)$", "\033[1m\\1\033[0m", text, flags=re.MULTILINE)
    out.write(text)
    out.flush()

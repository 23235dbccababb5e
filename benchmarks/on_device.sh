#!/usr/bin/env bash
# Measures TensorRT engines on a GPU machine: exports models, installs this package, tries every option of the engine
# on a small model, then runs the matrix in order of importance until the time is up.
#
#   OUT=FOLDER benchmarks/on_device.sh [SECONDS] [smoke|matrix|all|attention] [KIT]
#
# SECONDS   for everything (default: 540)
# KIT       a folder with env.sh that puts a Python 3.10 with TensorRT first (default: none, python3 has TensorRT)
# OUT       where results go: tensorrt.json, matrix.txt, smoke.txt, and everything else in all.tar.gz
# ENGINE    what is measured (default: tensorrt with the tactic sources that need no cuBLAS)
# PLAN      what the matrix measures, "MODEL:PASSES:PRECISION ..." (default: below)
# MORE      further options of `python -m benchmarks tensorrt`
#
# "attention" measures `python -m benchmarks mhsa` alone, on every GPU: attention.txt, mhsa_tensorrt.json.
#
# The models are exported by the system's python3, which has torch; the rest runs in the kit's Python. A second run on
# the same machine finds models, engines and rows of the first, and goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
budget=${1:-540} what=${2:-all} kit=${3:-}
out=${OUT:-${TMPDIR:-/tmp}/onnx-rewrite-results}
state=${STATE:-${TMPDIR:-/tmp}/onnx-rewrite-state}
models=${MODELS:-$state/models}
engine=${ENGINE:-tensorrt:tactic-sources=edge_mask_convolutions+jit_convolutions}
detail=$state/detail
mkdir -p "$out" "$models" "$detail"
export ONNX_REWRITE_CACHE=${ONNX_REWRITE_CACHE:-$state/cache}
left() { echo $((budget - SECONDS)); }

# Whatever happens, what there is lies in $out when this ends: few files, for some machines hand back only a few.
gather() {
  [ -s "$detail/tensorrt.json" ] && cp "$detail/tensorrt.json" "$out/"
  [ -s "$detail/mhsa_tensorrt.json" ] && cp "$detail/mhsa_tensorrt.json" "$out/"
  for file in smoke.txt matrix.txt attention.txt; do [ -s "$detail/$file" ] && cp "$detail/$file" "$out/"; done
  tar -C "$detail" -czf "$out/all.tar.gz" . 2>/dev/null
}
trap gather EXIT
trap 'exit 143' TERM INT

nvidia-smi --query-gpu=name,driver_version,memory.used,memory.total --format=csv,noheader 2>/dev/null | tee "$detail/gpu.txt"

# The export needs processors, the smoke test few of them: they run side by side.
exporter=
if [ "$what" = attention ]; then
  # In the order in which they are wanted; what is there already is not exported again.
  {
    for batch in 8 1 32; do
      timeout "$budget" python3 benchmarks/export_models.py "$models" --batch $batch --models vit_b_16 deit_tiny
      timeout "$budget" python3 benchmarks/export_models.py "$models" --batch $batch --opset 12 --models bert bert_384 swin_t
    done
  } > "$detail/export.txt" 2>&1 &
  exporter=$!
elif [ "$what" != smoke ]; then
  # The system's own Python, before the kit hides it.
  timeout "$budget" python3 benchmarks/export_models.py "$models" \
    --models swin_t mobilenet_v2 resnet50 bert mobilenet_v2_minmax > "$detail/export.txt" 2>&1 &
  exporter=$!
fi

if [ -n "$kit" ]; then
  . "$kit/env.sh" || exit 1
  python=python3.10
else
  python=python3
fi
$python -c "import onnx_rewrite" 2>/dev/null ||
  $python -m pip install -q --no-deps --no-build-isolation --no-index -e . 2>&1 | tail -3
$python - <<'P' || exit 1
import onnx_rewrite, onnx, onnxruntime, cuda.core, cuda.bindings
print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, "cuda-core", cuda.core.__version__,
      "cuda-bindings", cuda.bindings.__version__)
P

failed=0
try() { # NAME EXPECTED-STATUS COMMAND...: runs one command of the smoke test and notes what came of it
  local name=$1 wanted=$2 status start=$SECONDS
  shift 2
  if [ "$(left)" -lt 10 ]; then
    echo "-     $name: the time is up"
    return
  fi
  timeout "$(($(left) < 120 ? $(left) - 5 : 120))" "$@" > "$detail/smoke-$name.txt" 2>&1
  status=$?
  if [ "$status" = "$wanted" ]; then
    echo "ok    $name ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1))
    echo "FAIL  $name: status $status, not $wanted ($((SECONDS - start)) s)"
    tail -n 12 "$detail/smoke-$name.txt" | cut -c1-400 | sed 's/^/        /'
  fi
}

smoke() {
  local m=tests/models/exported s="$detail/smoke" sources=edge_mask_convolutions,jit_convolutions
  mkdir -p "$s"
  local rewrite=("$python" -X faulthandler -m onnx_rewrite)
  local bench=("${rewrite[@]}" bench) worker=("$python" -X faulthandler -m benchmarks.trt_worker)
  local few=(--duration 0.3 --tactic-sources "$sources")
  local tensorrt=(--engines tensorrt "${few[@]}")
  # What the start of a process costs, first with a builder, then as it is once the library is known to work.
  for name in start started; do
    try $name 0 "${worker[@]}" <<< '{"job": "about", "library": "tensorrt", "engine": "tensorrt"}'
    grep -o '"startup".*' "$detail/smoke-$name.txt"
  done
  try plain 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" "${tensorrt[@]}"
  try cached 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" "${tensorrt[@]}" --json
  try options 0 "${bench[@]}" "$m/mobilenet_v2_legacy_op12_keep_bn_dynamic.onnx" "${tensorrt[@]}" \
    --precision fp16 --shape x=1,3,64,64:4,3,64,64:8,3,64,64 --workspace 512 --level 2 --timing-cache "$s/timings" \
    --hardware-compatibility none --cuda-graph off --transfers --streams 2 --cache off --profile
  try exports 0 "${bench[@]}" "$m/swin_legacy_op12.onnx" "${tensorrt[@]}" --profile --where /norm/Add_1 \
    --export-times "$s/times.json" --export-profile "$s/profile.json" --export-layers "$s/layers.json" \
    --export-outputs "$s/outputs.json" --export-log "$s/build.log"
  try log 0 "${bench[@]}" --log "$s/build.log"
  try function 0 "${bench[@]}" tests/models/handmade/local_function_minmax_op18.onnx "${tensorrt[@]}"
  try refused 1 "${bench[@]}" tests/models/handmade/std_deformconv_op19.onnx "${tensorrt[@]}"
  try onnxruntime 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --engines auto --duration 0.2 --tactic-sources "$sources"
  try rewrite 0 "${rewrite[@]}" "$m/subblock_legacy_op12.onnx" --passes bn,ln,clip -o "$s/rewritten.onnx" \
    --bench "$engine:no-cache" --report "$s/report.json"
  try same 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --compare "$m/subblock_legacy_op12.onnx" "${tensorrt[@]}"
  if [ "${FULL:-}" ]; then # a minute and more
    try compare 0 "${bench[@]}" "$m/swin_legacy_op17.onnx" --compare "$m/swin_legacy_op12.onnx" "${tensorrt[@]}" --precision fp32,fp16
    try bert 0 "${bench[@]}" "$m/bert_legacy_op12.onnx" "${tensorrt[@]}"
  fi
  for name in plain options exports log refused; do
    echo "--- $name"
    cut -c1-170 "$detail/smoke-$name.txt" | tail -n 28
  done
  gzip -f "$s/build.log" 2>/dev/null # tens of megabytes
  echo "smoke test: $failed failed, $(left) s left"
}

# "tf32" is what trtexec does when nothing is said; "fp32" is without TF32.
plan=${PLAN:-swin_t_op12:ln:tf32 swin_t_op12:ln:fp16 mobilenet_v2_op12:bn:fp16 resnet50_op12:bn:fp16 bert_op12:ln:fp16
  mobilenet_v2_op12:bn:tf32 resnet50_op12:bn:tf32 bert_op12:ln:tf32 mobilenet_v2_minmax_op12:clip:fp16
  mobilenet_v2_minmax_op12:clip:tf32 swin_t_op17:ln:fp16 swin_t_op12:ln:fp32 mobilenet_v2_op12:clip:fp16
  resnet50_op12:ln:fp16 bert_op12:bn:fp16 resnet50_op12:bn:fp32 bert_op12:ln:fp32 mobilenet_v2_op12:bn:fp32}

matrix() {
  local entries=() entry
  for entry in $plan; do entries+=("$models/${entry%%:*}.onnx:${entry#*:}"); done
  timeout "$(($(left) - 3))" $python -m benchmarks tensorrt --plan "${entries[@]}" --engines "$engine" --duration 2 \
    --budget "$(($(left) - 8))" --await-models --resume --work "$state/work" --out "$detail/tensorrt.json" ${MORE:-} \
    2> "$detail/matrix-progress.txt" > "$detail/matrix.txt"
  cat "$detail/export.txt"
  cut -c1-220 "$detail/matrix-progress.txt" | tail -n 60
  [ -s "$detail/matrix.txt" ] || $python -m benchmarks tensorrt --table --out "$detail/tensorrt.json" > "$detail/matrix.txt"
  cat "$detail/matrix.txt"
}

attention() {
  timeout -k 5 "$(($(left) - 3))" $python -m benchmarks mhsa --exports "$models" --work "$state/attention" \
    --budget "$(($(left) - 10))" --out "$detail/mhsa_tensorrt.json" ${MORE:-} \
    2> "$detail/attention-progress.txt" > "$detail/attention.txt"
  cat "$detail/export.txt"
  cut -c1-200 "$detail/attention-progress.txt" | tail -n 80
  cat "$detail/attention.txt"
}

if [ "$what" = attention ]; then
  attention
  kill "$exporter" 2>/dev/null
  exit 0
fi
[ "$what" = matrix ] || smoke 2>&1 | tee "$detail/smoke.txt"
[ "$what" = smoke ] || matrix
[ -z "$exporter" ] || kill "$exporter" 2>/dev/null
exit 0

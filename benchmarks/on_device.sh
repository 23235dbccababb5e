#!/usr/bin/env bash
# Measures TensorRT engines on a GPU machine: exports models, installs this package, tries every option of the engine
# on a small model, then runs the matrix in order of importance until the time is up.
#
#   OUT=/tmp/out benchmarks/on_device.sh [SECONDS] [smoke|matrix|all] [KIT]
#
# SECONDS   for everything (default: 540)
# KIT       a folder with env.sh that puts a Python 3.10 with TensorRT first (default: /opt/gpu-kit, where there is one)
# OUT       where results go: *.json after each model, smoke.txt, matrix.txt
# ENGINE    what is measured (default: tensorrt with the tactic sources that need no cuBLAS)
# PLAN      what the matrix measures, "MODEL:PASSES:PRECISION ..." (default: below)
#
# The models are exported by the system's python3, which has torch; the rest runs in the kit's Python.
set -uo pipefail
cd "$(dirname "$0")/.."
budget=${1:-540} what=${2:-all} kit=${3:-/opt/gpu-kit}
out=${OUT:-/tmp/onnx-rewrite-results}
models=${MODELS:-/tmp/onnx-rewrite-models}
engine=${ENGINE:-tensorrt:tactic-sources=edge_mask_convolutions+jit_convolutions}
mkdir -p "$out" "$models"
left() { echo $((budget - SECONDS)); }

nvidia-smi --query-gpu=name,driver_version,memory.used,memory.total --format=csv,noheader 2>/dev/null | tee "$out/gpu.txt"

# The export needs the processor, the smoke test little of it: they run side by side.
exported=
if [ "$what" != smoke ]; then
  timeout 300 python3 benchmarks/export_models.py "$models" --models swin_t mobilenet_v2 resnet50 bert mobilenet_v2_minmax \
    > "$out/export.txt" 2>&1 &
  exported=$!
fi

if [ -f "$kit/env.sh" ]; then
  . "$kit/env.sh"
  python=python3.10
else
  python=python3
fi
$python -m pip install -q --no-deps --no-build-isolation --no-index -e . 2>&1 | tail -3
$python - <<'P' || exit 1
import onnx_rewrite, tensorrt, onnx, onnxruntime
print("tensorrt", tensorrt.__version__, "onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
P
export ONNX_REWRITE_CACHE=${ONNX_REWRITE_CACHE:-/tmp/onnx-rewrite-cache}

failed=0
try() { # NAME EXPECTED-STATUS COMMAND...: runs one command of the smoke test and notes what came of it
  local name=$1 wanted=$2 status start=$SECONDS
  shift 2
  timeout 120 "$@" > "$out/smoke-$name.txt" 2>&1
  status=$?
  if [ "$status" = "$wanted" ]; then
    echo "ok    $name ($((SECONDS - start)) s)"
  else
    failed=$((failed + 1))
    echo "FAIL  $name: status $status, not $wanted ($((SECONDS - start)) s)"
    tail -n 8 "$out/smoke-$name.txt" | cut -c1-400 | sed 's/^/        /'
  fi
}
rewrite() { $python -m onnx_rewrite "$@"; }

smoke() {
  local m=tests/models/exported s="$out/smoke" sources=edge_mask_convolutions,jit_convolutions
  mkdir -p "$s"
  local bench=("$python" -m onnx_rewrite bench)
  local few=(--duration 0.3 --tactic-sources "$sources")
  rm -rf "$ONNX_REWRITE_CACHE"
  try plain 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --engines tensorrt "${few[@]}"
  try cached 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --engines tensorrt "${few[@]}" --json
  try options 0 "${bench[@]}" "$m/mobilenet_v2_legacy_op12_keep_bn_dynamic.onnx" --engines tensorrt "${few[@]}" \
    --precision fp16 --shape x=1,3,64,64:4,3,64,64:8,3,64,64 --workspace 512 --level 2 --timing-cache "$s/timings" \
    --hardware-compatibility none --cuda-graph off --transfers --streams 2 --cache off
  try exports 0 "${bench[@]}" "$m/swin_legacy_op12.onnx" --engines tensorrt "${few[@]}" --profile \
    --export-times "$s/times.json" --export-profile "$s/profile.json" --export-layers "$s/layers.json" \
    --export-outputs "$s/outputs.json" --export-log "$s/build.log"
  try log 0 "${bench[@]}" --log "$s/build.log"
  try rewrite 0 "$python" -m onnx_rewrite "$m/swin_legacy_op12.onnx" --passes ln -o "$s/swin.onnx" \
    --bench "$engine:no-cache" --report "$s/report.json"
  try compare 0 "${bench[@]}" "$s/swin.onnx" --compare "$m/swin_legacy_op12.onnx" --engines tensorrt "${few[@]}" --precision fp32,fp16
  try same 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --compare "$m/subblock_legacy_op12.onnx" --engines tensorrt "${few[@]}"
  try function 0 "${bench[@]}" tests/models/handmade/local_function_minmax_op18.onnx --engines tensorrt "${few[@]}"
  try bert 0 "${bench[@]}" "$m/bert_legacy_op12.onnx" --engines tensorrt "${few[@]}"
  try refused 1 "${bench[@]}" tests/models/handmade/std_deformconv_op19.onnx --engines tensorrt "${few[@]}"
  try onnxruntime 0 "${bench[@]}" "$m/subblock_legacy_op12.onnx" --engines auto --duration 0.2 --tactic-sources "$sources"
  for name in plain compare exports log refused; do
    echo "--- $name"
    cut -c1-170 "$out/smoke-$name.txt" | tail -n 28
  done
  gzip -f "$s/build.log" 2>/dev/null # tens of megabytes
  echo "smoke test: $failed failed, $(left) s left"
}

plan=${PLAN:-swin_t_op12:ln:fp32 swin_t_op12:ln:fp16 mobilenet_v2_op12:bn:fp16 resnet50_op12:bn:fp16 bert_op12:ln:fp16
  mobilenet_v2_minmax_op12:clip:fp16 mobilenet_v2_op12:bn:fp32 bert_op12:ln:fp32 resnet50_op12:bn:fp32
  mobilenet_v2_minmax_op12:clip:fp32 mobilenet_v2_op12:clip:fp16 swin_t_op17:ln:fp16 bert_op17:ln:fp16}

matrix() {
  [ -z "$exported" ] || wait "$exported"
  cat "$out/export.txt"
  local entries=() entry
  for entry in $plan; do entries+=("$models/${entry%%:*}.onnx:${entry#*:}"); done
  # Results are on disk after each model; a second run goes on where the first one stopped. Sites are not verified here,
  # which takes minutes for convolutions in float64: the error of the outputs is measured anyhow.
  local kept=${STATE:-/tmp/onnx-rewrite-state}/tensorrt.json
  mkdir -p "${kept%/*}"
  [ -s "$kept" ] && cp "$kept" "$out/tensorrt.json"
  timeout "$(($(left) - 5))" $python -m benchmarks tensorrt --plan "${entries[@]}" --engines "$engine" --duration 2 \
    --budget "$(($(left) - 100))" --unchanged --resume --verify off --out "$out/tensorrt.json" 2> "$out/matrix-progress.txt" > "$out/matrix.txt"
  cp "$out/tensorrt.json" "$kept" 2>/dev/null
  tail -n 5 "$out/matrix-progress.txt" | cut -c1-300
  [ -s "$out/matrix.txt" ] || $python -m benchmarks tensorrt --table --out "$out/tensorrt.json" > "$out/matrix.txt"
  cat "$out/matrix.txt"
}

[ "$what" = matrix ] || smoke 2>&1 | tee "$out/smoke.txt"
[ "$what" = smoke ] || matrix

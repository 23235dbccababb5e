#!/usr/bin/env bash
# The deformable convolution's kernel on a GPU machine, without TensorRT: builds it, compares it, times it beside
# torchvision, and runs compute-sanitizer over small problems. What there is when the time is up lies in $OUT.
#
#   OUT=FOLDER benchmarks/deform_device.sh [all|speed|sanitizer]
#
# PYTHON    a Python with torch, torchvision, onnx and onnxruntime (default: python3)
# PROBLEMS  random problems per type (default: 240)
# ARCH      what is compiled for (default: 90a)
set -uo pipefail
cd "$(dirname "$0")/.."
what=${1:-all} out=${OUT:-${TMPDIR:-/tmp}/deform-results} python=${PYTHON:-python3} arch=${ARCH:-90a}
work=$(mktemp -d)
mkdir -p "$out"
export PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/gpu.txt"

nvcc=(nvcc -std=c++17 -O3 "-gencode=arch=compute_$arch,code=sm_$arch")
source=plugins/deform_conv
"${nvcc[@]}" --split-compile=0 -Xcompiler -fPIC -c $source/kernel.cu -o "$work/kernel.o" || exit 1
"${nvcc[@]}" -shared "$work/kernel.o" -o "$work/deform_conv.so" || exit 1
"${nvcc[@]}" $source/check.cu "$work/kernel.o" -o "$work/check" || exit 1
echo "built in $SECONDS s"
timeout 60 "$work/check" | tee "$out/check.txt"

if [ "$what" != sanitizer ]; then
  # The packages of this repository under their names, without installing anything.
  mkdir -p "$work/site/onnx_rewrite"
  cp -r core/. "$work/site/onnx_rewrite/"
  cp -r passes "$work/site/onnx_rewrite/passes"
  cp -r plugins "$work/site/onnx_rewrite/plugins"
  PYTHONPATH="$work/site" ONNX_REWRITE_CACHE="$work/cache" timeout 170 "$python" -m benchmarks deform-kernel \
    --library "$work/deform_conv.so" --problems "${PROBLEMS:-240}" --onnxruntime --every --nvrtc --budget 60 \
    --out "$out/deform_kernel.json" 2>&1 | tee "$out/deform_kernel.txt"
fi

if [ "$what" != speed ]; then
  for tool in memcheck initcheck racecheck; do
    for type in fp16 tf32 fp32 bf16; do
      # One kernel a process: a tool rewrites every kernel that is loaded, and these are long.
      began=$SECONDS
      CUDA_MODULE_LOADING=LAZY timeout "${LIMIT:-30}" compute-sanitizer --tool $tool --error-exitcode 9 \
        "$work/check" tiny $type > "$work/said.txt" 2>&1
      status=$?
      { echo "== $tool $type: status $status, $((SECONDS - began)) s"; grep -E "ERROR SUMMARY|RACECHECK SUMMARY|runs," "$work/said.txt"; } | tee -a "$out/sanitizer.txt"
      [ $status = 0 ] || head -n 40 "$work/said.txt" | tee -a "$out/sanitizer.txt"
    done
  done
fi
rm -rf "$work"
echo "$SECONDS s in all"

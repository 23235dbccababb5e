#!/usr/bin/env bash
# The plugins inside TensorRT 8.6 on a GPU machine: compiled for its GPU, whole models beside onnxruntime, times, and an
# engine that a C++ program runs. What there is when the time is up lies in $OUT.
#
#   OUT=FOLDER benchmarks/deform_engine_device.sh [KIT]
#
# KIT             a folder with env.sh that puts a Python 3.10 with TensorRT first (default: none, python3 has TensorRT)
# TENSORRT_INCLUDE_DIR  TensorRT's headers
# ONLY            parts of names of checks (default: all)
set -uo pipefail
cd "$(dirname "$0")/.."
kit=${1:-} out=${OUT:-${TMPDIR:-/tmp}/deform-engine-results}
include=${TENSORRT_INCLUDE_DIR:?the folder of TensorRT's headers}
python=python3
work=$(mktemp -d)
mkdir -p "$out"
export PYTHONUNBUFFERED=1
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader | tee "$out/gpu.txt"

# CMake, as README.md has it, for this GPU; at the same time what onnxruntime makes of the models, with the system's Python.
(
  for plugin in deform_conv relu_sigmoid; do
    cmake -S plugins/$plugin -B "$work/$plugin" -DTENSORRT_INCLUDE_DIR="$include" -DCMAKE_CUDA_ARCHITECTURES="${ARCH:-90a-real}" \
      -DCMAKE_CUDA_FLAGS=--split-compile=0 > /dev/null && cmake --build "$work/$plugin" -j 8 || exit 1
  done
) > "$out/cmake.txt" 2>&1 &
builder=$!
python3 -m benchmarks deform-engine "$work/expect" --expect || exit 1
wait $builder || { tail -n 20 "$out/cmake.txt"; exit 1; }
libraries=("$work"/deform_conv/libonnx_rewrite_deform_conv.so "$work"/relu_sigmoid/libonnx_rewrite_relu_sigmoid.so)
ls -l "${libraries[@]}"
echo "prepared in $SECONDS s"

# Before the kit hides the system's libraries.
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")
if [ -n "$kit" ]; then
  . "$kit/env.sh" || exit 1
  python=python3.10
fi
$python -c "import onnx_rewrite" 2>/dev/null ||
  $python -m pip install -q --no-deps --no-build-isolation --no-index -e . 2>&1 | tail -3
$python -m benchmarks deform-engine "$work/expect" --libraries "${libraries[@]}" --only "${ONLY:-}" --keep "$work/kept" \
  --budget "${BUDGET:-200}" --out "$out/deform_engine.json" 2>&1 | tee "$out/deform_engine.txt"

if [ -f "$work/kept/layer.engine" ]; then
  nvinfer=$($python -c 'import glob, site; print(glob.glob(site.getsitepackages()[0] + "/tensorrt/libnvinfer.so.8")[0])')
  g++ -std=c++17 -w -isystem "$include" -isystem "$toolkit/include" examples/run_engine.cpp -L"$toolkit/lib64" -lcudart -ldl \
    "$nvinfer" -Wl,--allow-shlib-undefined -o "$work/run_engine" || exit 1
  LD_LIBRARY_PATH=$(dirname "$nvinfer"):$toolkit/lib64:$LD_LIBRARY_PATH "$work/run_engine" "$work/kept/layer.engine" \
    "${libraries[0]}" "$work/kept/x.bin" "$work/kept/y_cpp.bin" 2>&1 | tee "$out/cpp.txt"
  cmp "$work/kept/y.bin" "$work/kept/y_cpp.bin" && echo "C++: the same output, to the bit" | tee -a "$out/cpp.txt"
fi
rm -rf "$work"
echo "$SECONDS s in all"

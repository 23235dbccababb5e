// `ReluSigmoid`, max(x, 0) / (1 + exp(-x)) element by element, for TensorRT: what a plugin of one's own comes to.
#include "../common/adapter.h"

#include <cuda_fp16.h>

namespace onnx_rewrite {
namespace {

__device__ float activation(float x) {
    // Where x < 0 the numerator is zero, whatever exp(-x) comes to; NaN stays NaN.
    return x < 0.f ? 0.f : x / (1.f + __expf(-x));
}
__device__ float to_float(float x) { return x; }
__device__ float to_float(__half x) { return __half2float(x); }

template <typename T> __global__ void relu_sigmoid(T const* __restrict__ x, T* __restrict__ y, int64_t count) {
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < count; i += (int64_t)gridDim.x * blockDim.x)
        y[i] = T(activation(to_float(x[i])));
}

}  // namespace

struct ReluSigmoid {
    static constexpr char const* kName = "ReluSigmoid";
    static constexpr char const* kVersion = "1";
    static constexpr char const* kNamespace = "onnx_rewrite";
    static constexpr int kFewest = 1, kMost = 1;
    static constexpr std::array<Field, 0> kFields = {};

    static std::string check(Values const&) { return ""; }

    static std::string shape(Values const&, Shapes const& in, DimsExprs& y) {
        y = in.inputs[0];
        return "";
    }

    static bool takes(int position, PluginTensorDesc const* tensors, int) {
        PluginTensorDesc const& t = tensors[position];
        return (t.type == DataType::kFLOAT || t.type == DataType::kHALF) && t.type == tensors[0].type
            && t.format == nvinfer1::TensorFormat::kLINEAR;
    }

    static size_t workspace(Values const&, PluginTensorDesc const*, int, PluginTensorDesc const&) { return 0; }

    static int enqueue(Values const&, PluginTensorDesc const*, int, PluginTensorDesc const& y, void const* const* data,
        void* output, void*, cudaStream_t stream) {
        int64_t count = 1;
        for (int i = 0; i < y.dims.nbDims; ++i) count *= y.dims.d[i];
        if (count == 0) return 0;
        int const blocks = (int)(count / 256 < 4096 ? count / 256 + 1 : 4096);
        if (y.type == DataType::kFLOAT)
            relu_sigmoid<<<blocks, 256, 0, stream>>>(static_cast<float const*>(data[0]), static_cast<float*>(output), count);
        else
            relu_sigmoid<<<blocks, 256, 0, stream>>>(static_cast<__half const*>(data[0]), static_cast<__half*>(output), count);
        return cudaGetLastError() == cudaSuccess ? 0 : 1;
    }
};

ONNX_REWRITE_PLUGIN(ReluSigmoid);

}  // namespace onnx_rewrite

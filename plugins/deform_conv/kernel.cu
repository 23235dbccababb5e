// Deformable convolution (ONNX DeformConv) as implicit GEMM: y[m, p] = sum over k of weight[m, k] * sample[k, p].
//
// Three kernels give the same function:
//   direct.cuh   one thread per output element, any sizes; the yardstick of the others, and best for tiny groups;
//   simt.cuh     FFMA on tiles in shared memory: fp32, and every GPU without the tensor cores that `tensor` wants;
//   tensor.cuh   tensor cores: fp16 and bf16 with fp32 accumulation, fp32 as TF32 or as three products of TF32.
//
// No column matrix exists in global memory. A small first kernel (prepare.cuh) writes x with channels last, framed by zero
// pixels, and the weights in the order in which the tiles are read; everything else happens in registers and shared
// memory. README.md beside this file tells why it is built this way and what it measures.
//
// This file launches them. The kernels are headers, which `runtime/` compiles without it, and launches from Python.
#include "kernel.h"

#include <type_traits>

#include "direct.cuh"
#include "schedule.h"
#include "simt.cuh"
#include "tensor.cuh"

namespace onnx_rewrite {
namespace {

cudaError_t current_device(Device* found) {
    int device = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (!error) error = cudaDeviceGetAttribute(&found->major, cudaDevAttrComputeCapabilityMajor, device);
    if (!error) error = cudaDeviceGetAttribute(&found->minor, cudaDevAttrComputeCapabilityMinor, device);
    if (!error) error = cudaDeviceGetAttribute(&found->processors, cudaDevAttrMultiProcessorCount, device);
    if (!error) error = cudaDeviceGetAttribute(&found->shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    return error;
}

template <typename T>
struct Call {
    Work const& work;
    T const *x, *weight, *offset, *bias, *mask;
    T* y;
    char* workspace;
    cudaStream_t stream;
    bool overlap;  // a kernel begins while the one before still runs

    cudaError_t direct(Launch const& l) const {
        direct_kernel<T><<<(int)l.blocks, l.threads, 0, stream>>>(work.plan.p, x, weight, offset, bias, mask, y);
        return cudaGetLastError();
    }

    template <bool kTensorOrder> cudaError_t prepare(Launch const& l) const {
        prepare_kernel<T, kTensorOrder>
            <<<(int)l.blocks, l.threads, 0, stream>>>(work.plan, l.image_blocks, l.frame_blocks, x, weight, workspace);
        return cudaGetLastError();
    }

    template <typename Kernel, typename... Arguments>
    cudaError_t launch(Kernel kernel, Launch const& l, int parts, Arguments... arguments) const {
        cudaLaunchAttribute attribute{};
        attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attribute.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t config{};
        config.gridDim = dim3((unsigned)l.blocks, parts);
        config.blockDim = dim3(l.threads);
        config.dynamicSmemBytes = l.shared;
        config.stream = stream;
        config.attrs = &attribute;
        config.numAttrs = overlap ? 1 : 0;
        return cudaLaunchKernelEx(&config, kernel, work.plan, arguments...);
    }

    template <typename Kernel> cudaError_t tile(Kernel kernel, Launch const& l) const {
        cudaError_t const error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, l.shared);
        if (error) return error;
        return launch(kernel, l, l.parts, l.first, static_cast<char const*>(workspace), offset, bias, mask, y);
    }

    cudaError_t finish(Launch const& l) const {
        return launch(finish_kernel<T>, l, 1, l.parts, static_cast<char const*>(workspace), bias, y);
    }

    template <bool kPacked, bool kSplit> cudaError_t tiles(Launch const& l) const {
        switch (l.shape) {
#define ONNX_REWRITE_LAUNCH(I, N, WM, WK, STAGES, TURN, ALONE) \
    case I: \
        if constexpr (!kSplit || comes_in_two_parts(N)) \
            return tile(tensor_kernel<T, kPacked, kSplit, N, WM, WK, STAGES>, l); \
        break;
            ONNX_REWRITE_TILES(ONNX_REWRITE_LAUNCH)
#undef ONNX_REWRITE_LAUNCH
        }
        return cudaErrorNotSupported;
    }

    cudaError_t tensor(Launch const& l) const {
        if constexpr (IsHalf<T>::value)
            if (!(work.tactic & kWide)) return tiles<true, false>(l);
        if constexpr (sizeof(T) == 4)
            if (work.plan.copies == 2) return tiles<false, true>(l);
        return tiles<false, false>(l);
    }

    cudaError_t run() const {
        if (work.count <= 0) return cudaErrorNotSupported;
        cudaError_t error = cudaSuccess;
        for (int i = 0; i < work.count && !error; ++i) {
            Launch const& l = work.launches[i];
            switch (l.kind) {
            case Kind::kDirect: error = direct(l); break;
            case Kind::kPrepare: error = work.tactic == (int)Tactic::kSimt ? prepare<false>(l) : prepare<true>(l); break;
            case Kind::kSimt: error = tile(simt_kernel<T>, l); break;
            case Kind::kTensor: error = tensor(l); break;
            case Kind::kFinish: error = finish(l); break;
            }
        }
        return error;
    }
};

}  // namespace

char const* refusal(DeformConv const& p) {
    if (p.n < 0 || p.h < 0 || p.w < 0 || p.oh < 0 || p.ow < 0) return "a size is negative";
    if (p.c < 1 || p.m < 1) return "there are no channels or no filters";
    if (p.kh < 1 || p.kw < 1) return "the kernel is empty";
    if (p.stride_h < 1 || p.stride_w < 1) return "strides must be at least 1";
    if (p.dilation_h < 1 || p.dilation_w < 1) return "dilations must be at least 1";
    if (p.groups < 1 || p.c % p.groups || p.m % p.groups) return "channels and filters are not divisible by the groups";
    if (p.offset_groups < 1 || p.c % p.offset_groups) return "channels are not divisible by the offset groups";
    return nullptr;
}

size_t workspace_size(DeformConv const& p, Type type, Math math, int tactic) {
    Device device{};
    if (refusal(p) || current_device(&device)) return 0;
    if ((int64_t)p.n * p.oh * p.ow == 0) return 0;
    Work const work = work_of(p, type, math, tactic, device, true);
    return work.count <= 0 || work.tactic == (int)Tactic::kDirect ? 0 : (size_t)work.plan.bytes;
}

size_t largest_workspace_size(DeformConv const& p, Type type, Math math) {
    if (refusal(p) || (int64_t)p.n * p.oh * p.ow == 0) return 0;
    return (size_t)largest_workspace(p, type, math);
}

cudaError_t deform_conv(DeformConv const& p, Type type, Math math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, cudaStream_t stream) {
    if (refusal(p)) return cudaErrorInvalidValue;
    if ((int64_t)p.n * p.oh * p.ow == 0) return cudaSuccess;
    Device device{};
    cudaError_t const error = current_device(&device);
    if (error) return error;
    Work const work = work_of(p, type, math, tactic, device, reinterpret_cast<uintptr_t>(x) % 16 == 0);
    auto call = [&](auto const* typed) {
        using T = std::remove_cv_t<std::remove_pointer_t<decltype(typed)>>;
        return Call<T>{work, static_cast<T const*>(x), static_cast<T const*>(weight), static_cast<T const*>(offset),
            static_cast<T const*>(bias), static_cast<T const*>(mask), static_cast<T*>(y), static_cast<char*>(workspace), stream,
            device.major >= 9}
            .run();
    };
    switch (type) {
    case Type::kFloat: return call(static_cast<float const*>(nullptr));
    case Type::kHalf: return call(static_cast<__half const*>(nullptr));
    case Type::kBFloat16: return call(static_cast<__nv_bfloat16 const*>(nullptr));
    }
    return cudaErrorInvalidValue;
}

}  // namespace onnx_rewrite

// For callers without C++: the sizes are the seventeen numbers of DeformConv in order.
extern "C" {
size_t onnx_rewrite_deform_conv_workspace(int const* sizes, int type, int math, int tactic) {
    return onnx_rewrite::workspace_size(*reinterpret_cast<onnx_rewrite::DeformConv const*>(sizes),
        (onnx_rewrite::Type)type, (onnx_rewrite::Math)math, tactic);
}

int onnx_rewrite_deform_conv(int const* sizes, int type, int math, int tactic, void const* x, void const* weight,
    void const* offset, void const* bias, void const* mask, void* y, void* workspace, void* stream) {
    return (int)onnx_rewrite::deform_conv(*reinterpret_cast<onnx_rewrite::DeformConv const*>(sizes),
        (onnx_rewrite::Type)type, (onnx_rewrite::Math)math, tactic, x, weight, offset, bias, mask, y, workspace,
        (cudaStream_t)stream);
}
}

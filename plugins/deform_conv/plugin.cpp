// `DeformConv2d` for TensorRT: attributes and inputs of ONNX DeformConv, in its order (x, weight, offset, bias, mask).
#include "../common/adapter.h"
#include "kernel.h"

#include <stdlib.h>

namespace onnx_rewrite {

struct DeformConv2d {
    static constexpr char const* kName = "DeformConv2d";
    static constexpr char const* kVersion = "1";
    static constexpr char const* kNamespace = "onnx_rewrite";
    static constexpr int kFewest = 3, kMost = 5;
    // Pads are begins, then ends, height before width. tf32, for fp32 tensors: 1, factors are rounded to TF32, as they are in
    // TensorRT's own convolutions by default; 0, fp32's accuracy.
    static constexpr std::array<Field, 7> kFields = {{{"kernel_shape", 2, true}, {"strides", 2, false, 1}, {"pads", 4, false, 0},
        {"dilations", 2, false, 1}, {"group", 1, false, 1}, {"offset_group", 1, false, 1}, {"tf32", 1, false, 1}}};
    enum { kKernel = 0, kStrides = 2, kPads = 4, kDilations = 8, kGroup = 10, kOffsetGroup = 11, kTf32 = 12 };

    static std::string check(Values const& v) {
        DeformConv sizes{1, v[kGroup] * v[kOffsetGroup], 1, 1, v[kGroup], 1, 1, v[kKernel], v[kKernel + 1], v[kStrides],
            v[kStrides + 1], v[kPads], v[kPads + 1], v[kDilations], v[kDilations + 1], v[kGroup], v[kOffsetGroup]};
        for (int i = 0; i < 4; ++i)
            if (v[kPads + i] < 0) return "pads are negative";
        if (v[kTf32] != 0 && v[kTf32] != 1) return "tf32 is 0 or 1";
        if (v[kGroup] < 1 || v[kOffsetGroup] < 1) return "group and offset_group must be at least 1";
        char const* const reason = refusal(sizes);
        return reason ? reason : "";
    }

    static std::string shape(Values const& v, Shapes const& in, DimsExprs& y) {
        static char const* const names[] = {"x", "weight", "offset", "bias", "mask"};
        for (int i = 0; i < in.count; ++i)
            if (in.rank(i) != (i == 3 ? 1 : 4))
                return std::string(names[i]) + " has " + std::to_string(in.rank(i)) + " dimensions; only images are known";
        // A dimension that is not known yet fits everything.
        auto differ = [&](int input, int axis, int64_t wanted) {
            int64_t const found = in.dim(input, axis);
            if (found < 0 || wanted < 0 || found == wanted) return std::string();
            return std::string(names[input]) + " has " + std::to_string(found) + " on axis " + std::to_string(axis) + ", not "
                + std::to_string(wanted);
        };
        int64_t const channels = in.dim(0, 1), filters = in.dim(1, 0), taps = (int64_t)v[kKernel] * v[kKernel + 1];
        if (channels > 0 && (channels % v[kGroup] || channels % v[kOffsetGroup]))
            return std::to_string(channels) + " channels are not divisible by group and offset_group";
        if (filters > 0 && filters % v[kGroup]) return std::to_string(filters) + " filters are not divisible by group";
        std::string reason;
        auto need = [&](int input, int axis, int64_t wanted) {
            if (reason.empty() && input < in.count) reason = differ(input, axis, wanted);
        };
        need(1, 1, channels < 0 ? -1 : channels / v[kGroup]);
        need(1, 2, v[kKernel]);
        need(1, 3, v[kKernel + 1]);
        need(2, 1, 2 * v[kOffsetGroup] * taps);
        need(3, 0, filters);
        need(4, 1, v[kOffsetGroup] * taps);
        for (int i = 0; i < 2; ++i) {
            int64_t const size = in.dim(0, 2 + i);
            int64_t const room = size + v[kPads + i] + v[kPads + 2 + i] - (int64_t)v[kDilations + i] * (v[kKernel + i] - 1) - 1;
            if (size >= 0 && room < 0) return "the kernel is larger than the padded image";
            need(2, 2 + i, size < 0 ? -1 : room / v[kStrides + i] + 1);
            need(4, 2 + i, in.dim(2, 2 + i));
        }
        if (!reason.empty()) return reason;
        y.nbDims = 4;
        y.d[0] = in.inputs[0].d[0];
        y.d[1] = in.inputs[1].d[0];
        y.d[2] = in.inputs[2].d[2];
        y.d[3] = in.inputs[2].d[3];
        return "";
    }

    static bool takes(int position, PluginTensorDesc const* tensors, int) {
        PluginTensorDesc const& t = tensors[position];
        bool known = t.type == DataType::kFLOAT || t.type == DataType::kHALF;
#if NV_TENSORRT_MAJOR >= 10
        known = known || t.type == DataType::kBF16;
#endif
        return known && t.type == tensors[0].type && t.format == nvinfer1::TensorFormat::kLINEAR;
    }

    static DeformConv sizes(Values const& v, PluginTensorDesc const* in, PluginTensorDesc const& y) {
        auto d = [](PluginTensorDesc const& t, int axis) { return (int)t.dims.d[axis]; };
        return {d(in[0], 0), d(in[0], 1), d(in[0], 2), d(in[0], 3), d(in[1], 0), d(y, 2), d(y, 3), v[kKernel], v[kKernel + 1],
            v[kStrides], v[kStrides + 1], v[kPads], v[kPads + 1], v[kDilations], v[kDilations + 1], v[kGroup], v[kOffsetGroup]};
    }

    static Type type(PluginTensorDesc const& t) {
        if (t.type == DataType::kHALF) return Type::kHalf;
        return t.type == DataType::kFLOAT ? Type::kFloat : Type::kBFloat16;
    }

    // NVIDIA_TF32_OVERRIDE=0 forbids TF32 in NVIDIA's libraries, and here, three products of it among them.
    static Math math(Values const& v) {
        static bool const forbidden = [] {
            char const* const value = getenv("NVIDIA_TF32_OVERRIDE");
            return value && !strcmp(value, "0");
        }();
        if (forbidden) return Math::kFFMA;
        return v[kTf32] ? Math::kTF32 : Math::kExact;
    }

    static size_t workspace(Values const& v, PluginTensorDesc const* in, int, PluginTensorDesc const& y) {
        return largest_workspace_size(sizes(v, in, y), type(in[0]), math(v));
    }

    static int enqueue(Values const& v, PluginTensorDesc const* in, int count, PluginTensorDesc const& y,
        void const* const* data, void* output, void* workspace, cudaStream_t stream) {
        cudaError_t const error = deform_conv(sizes(v, in, y), type(in[0]), math(v), (int)Tactic::kAuto, data[0], data[1],
            data[2], count > 3 ? data[3] : nullptr, count > 4 ? data[4] : nullptr, output, workspace, stream);
        if (error != cudaSuccess) detail::report(kName, cudaGetErrorString(error));
        return error == cudaSuccess ? 0 : 1;
    }
};

ONNX_REWRITE_PLUGIN(DeformConv2d);

}  // namespace onnx_rewrite

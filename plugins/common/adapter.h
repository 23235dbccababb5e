// One description of an operator, every TensorRT: an IPluginV2DynamicExt for TensorRT 8 and 9, an IPluginV3 from 10 on.
//
// A description is a struct `Op`:
//
//   static constexpr char const *kName, *kVersion, *kNamespace;     how the parser finds it
//   static constexpr int kFewest, kMost;                            inputs
//   static constexpr std::array<Field, n> kFields;                  integer attributes
//   static std::string check(Values const&);                        a reason, or nothing; when a node is read
//   static std::string shape(Values const&, Shapes const&, DimsExprs& y);       of the output; a reason, or nothing
//   static bool takes(int position, PluginTensorDesc const* tensors, int inputs);   types and formats, output last
//   static size_t workspace(Values const&, PluginTensorDesc const* inputs, int count, PluginTensorDesc const& y);
//   static int enqueue(Values const&, PluginTensorDesc const* inputs, int count, PluginTensorDesc const& y,
//       void const* const* data, void* output, void* workspace, cudaStream_t stream);
//
// and ONNX_REWRITE_PLUGIN(Op) registers it when the library is loaded. The library has no undefined symbol of TensorRT:
// the registry is looked up in the process, so one file works from trtexec, Python and C++ alike.
#pragma once

#include <NvInferRuntime.h>
#include <NvInferVersion.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace onnx_rewrite {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginTensorDesc;

// An attribute of `count` integers. `fallback` is what stands for a missing one; a required one has none.
struct Field {
    char const* name;
    int count;
    bool required = false;
    int fallback = 0;
};

// The integers of all fields, one after the other.
using Values = std::vector<int32_t>;

namespace detail {

inline void* symbol(char const* name) {
    if (void* found = dlsym(RTLD_DEFAULT, name)) return found;
    for (char const* library : {"libnvinfer.so.8", "libnvinfer.so.9", "libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so",
             "libtensorrt_rtx.so.1", "libtensorrt_rtx.so"})
        if (void* handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD))
            if (void* found = dlsym(handle, name)) return found;
    return nullptr;
}

inline void report(char const* name, std::string const& reason) {
    std::string const text = std::string(name) + ": " + reason;
    using Get = nvinfer1::ILogger* (*)();
    auto get = reinterpret_cast<Get>(symbol("getLogger"));
    nvinfer1::ILogger* logger = get ? get() : nullptr;
    if (logger) logger->log(nvinfer1::ILogger::Severity::kERROR, text.c_str());
    else fprintf(stderr, "%s\n", text.c_str());
}

}  // namespace detail

// Shapes of inputs while a network is built.
struct Shapes {
    DimsExprs const* inputs;
    int count;
    nvinfer1::IExprBuilder& builder;

    int rank(int input) const { return inputs[input].nbDims; }
    // A dimension, or -1 where it is not known before the engine runs.
    int64_t dim(int input, int axis) const {
        auto const* expression = inputs[input].d[axis];
        return expression && expression->isConstant() ? (int64_t)expression->getConstantValue() : -1;
    }
};

// Reads attributes into values; returns a reason, or nothing.
template <typename Op> std::string read(PluginFieldCollection const* given, Values& values) {
    values.clear();
    for (Field const& field : Op::kFields) {
        PluginField const* found = nullptr;
        for (int i = 0; given && i < given->nbFields; ++i)
            if (!strcmp(given->fields[i].name, field.name)) found = given->fields + i;
        if (!found) {
            if (field.required) return std::string("attribute ") + field.name + " is missing";
            values.insert(values.end(), field.count, field.fallback);
            continue;
        }
        if (found->length != field.count)
            return std::string("attribute ") + field.name + " has " + std::to_string(found->length) + " numbers, not "
                + std::to_string(field.count);
        for (int i = 0; i < field.count; ++i) {
            if (found->type == nvinfer1::PluginFieldType::kINT32) values.push_back(static_cast<int32_t const*>(found->data)[i]);
#if NV_TENSORRT_MAJOR >= 10
            else if (found->type == nvinfer1::PluginFieldType::kINT64)
                values.push_back((int32_t) static_cast<int64_t const*>(found->data)[i]);
#endif
            else return std::string("attribute ") + field.name + " is not of integers";
        }
    }
    return Op::check(values);
}

template <typename Op> PluginFieldCollection const* field_names() {
    static std::vector<PluginField> const fields = [] {
        std::vector<PluginField> made;
        for (Field const& field : Op::kFields) made.emplace_back(field.name, nullptr, nvinfer1::PluginFieldType::kINT32, field.count);
        return made;
    }();
    static PluginFieldCollection const collection{(int32_t)fields.size(), fields.data()};
    return &collection;
}

template <typename Op> std::string shape_of(Values const& values, Shapes const& shapes, DimsExprs& y) {
    if (shapes.count < Op::kFewest || shapes.count > Op::kMost)
        return std::to_string(shapes.count) + " inputs, not " + std::to_string(Op::kFewest) + " to " + std::to_string(Op::kMost);
    return Op::shape(values, shapes, y);
}

#if NV_TENSORRT_MAJOR < 10

template <typename Op> class Plugin final : public nvinfer1::IPluginV2DynamicExt {
public:
    explicit Plugin(Values values) : values_(std::move(values)) {}

    nvinfer1::IPluginV2DynamicExt* clone() const noexcept override { return new Plugin(*this); }
    DimsExprs getOutputDimensions(int32_t, DimsExprs const* in, int32_t count, nvinfer1::IExprBuilder& builder) noexcept override {
        DimsExprs y{};
        std::string const reason = shape_of<Op>(values_, Shapes{in, count, builder}, y);
        if (reason.empty()) return y;
        detail::report(Op::kName, reason);
        y.nbDims = -1;
        return y;
    }
    bool supportsFormatCombination(int32_t at, PluginTensorDesc const* tensors, int32_t inputs, int32_t) noexcept override {
        return Op::takes(at, tensors, inputs);
    }
    void configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t count, nvinfer1::DynamicPluginTensorDesc const*,
        int32_t) noexcept override {
        count_ = count;
    }
    size_t getWorkspaceSize(PluginTensorDesc const* in, int32_t count, PluginTensorDesc const* out, int32_t) const noexcept override {
        return Op::workspace(values_, in, count, out[0]);
    }
    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* out, void const* const* data, void* const* outputs,
        void* workspace, cudaStream_t stream) noexcept override {
        return Op::enqueue(values_, in, count_, out[0], data, outputs[0], workspace, stream);
    }
    DataType getOutputDataType(int32_t, DataType const* types, int32_t) const noexcept override { return types[0]; }
    char const* getPluginType() const noexcept override { return Op::kName; }
    char const* getPluginVersion() const noexcept override { return Op::kVersion; }
    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t initialize() noexcept override { return 0; }
    void terminate() noexcept override {}
    size_t getSerializationSize() const noexcept override { return (values_.size() + 2) * sizeof(int32_t); }
    void serialize(void* buffer) const noexcept override {
        int32_t const head[2] = {(int32_t)values_.size(), count_};
        memcpy(buffer, head, sizeof head);
        memcpy(static_cast<char*>(buffer) + sizeof head, values_.data(), values_.size() * sizeof(int32_t));
    }
    static Plugin* deserialize(void const* data, size_t length) {
        int32_t head[2];
        size_t const expected = sizeof head + total() * sizeof(int32_t);
        if (length != expected) return nullptr;
        memcpy(head, data, sizeof head);
        if (head[0] != total()) return nullptr;
        Values values(total());
        memcpy(values.data(), static_cast<char const*>(data) + sizeof head, values.size() * sizeof(int32_t));
        if (!Op::check(values).empty()) return nullptr;
        auto* plugin = new Plugin(std::move(values));
        plugin->count_ = head[1];
        return plugin;
    }
    void destroy() noexcept override { delete this; }
    void setPluginNamespace(char const* name) noexcept override { namespace_ = name; }
    char const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

private:
    static int total() {
        int sum = 0;
        for (Field const& field : Op::kFields) sum += field.count;
        return sum;
    }
    Values values_;
    int32_t count_ = Op::kMost;  // inputs, as the builder told
    std::string namespace_ = Op::kNamespace;
};

template <typename Op> class Creator final : public nvinfer1::IPluginCreator {
public:
    char const* getPluginName() const noexcept override { return Op::kName; }
    char const* getPluginVersion() const noexcept override { return Op::kVersion; }
    PluginFieldCollection const* getFieldNames() noexcept override { return field_names<Op>(); }
    nvinfer1::IPluginV2* createPlugin(char const*, PluginFieldCollection const* fields) noexcept override {
        Values values;
        std::string const reason = read<Op>(fields, values);
        if (reason.empty()) return new Plugin<Op>(std::move(values));
        detail::report(Op::kName, reason);
        return nullptr;
    }
    nvinfer1::IPluginV2* deserializePlugin(char const*, void const* data, size_t length) noexcept override {
        auto* plugin = Plugin<Op>::deserialize(data, length);
        if (!plugin) detail::report(Op::kName, "the engine was built with another version of this plugin");
        return plugin;
    }
    void setPluginNamespace(char const* name) noexcept override { namespace_ = name; }
    char const* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

private:
    std::string namespace_ = Op::kNamespace;
};

#else

template <typename Op>
class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
public:
    explicit Plugin(Values values) : values_(std::move(values)) {}

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
        switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }
    nvinfer1::IPluginV3* clone() noexcept override {
        auto* copy = new Plugin(values_);
        copy->count_ = count_;
        return copy;
    }
    char const* getPluginName() const noexcept override { return Op::kName; }
    char const* getPluginVersion() const noexcept override { return Op::kVersion; }
    char const* getPluginNamespace() const noexcept override { return Op::kNamespace; }

    int32_t getNbOutputs() const noexcept override { return 1; }
    int32_t getOutputDataTypes(DataType* out, int32_t, DataType const* types, int32_t) const noexcept override {
        out[0] = types[0];
        return 0;
    }
    int32_t getOutputShapes(DimsExprs const* in, int32_t count, DimsExprs const*, int32_t, DimsExprs* out, int32_t,
        nvinfer1::IExprBuilder& builder) noexcept override {
        std::string const reason = shape_of<Op>(values_, Shapes{in, count, builder}, out[0]);
        if (!reason.empty()) detail::report(Op::kName, reason);
        return reason.empty() ? 0 : -1;
    }
    bool supportsFormatCombination(
        int32_t at, nvinfer1::DynamicPluginTensorDesc const* tensors, int32_t inputs, int32_t) noexcept override {
        std::vector<PluginTensorDesc> plain;
        for (int i = 0; i <= at; ++i) plain.push_back(tensors[i].desc);
        return Op::takes(at, plain.data(), inputs);
    }
    int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const*, int32_t count, nvinfer1::DynamicPluginTensorDesc const*,
        int32_t) noexcept override {
        count_ = count;
        return 0;
    }
    size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* in, int32_t count,
        nvinfer1::DynamicPluginTensorDesc const* out, int32_t) const noexcept override {
        std::vector<PluginTensorDesc> largest;
        for (int i = 0; i < count; ++i) largest.push_back(in[i].desc), largest.back().dims = in[i].max;
        PluginTensorDesc y = out[0].desc;
        y.dims = out[0].max;
        return Op::workspace(values_, largest.data(), count, y);
    }

    int32_t onShapeChange(PluginTensorDesc const*, int32_t count, PluginTensorDesc const*, int32_t) noexcept override {
        count_ = count;
        return 0;
    }
    int32_t enqueue(PluginTensorDesc const* in, PluginTensorDesc const* out, void const* const* data, void* const* outputs,
        void* workspace, cudaStream_t stream) noexcept override {
        return Op::enqueue(values_, in, count_, out[0], data, outputs[0], workspace, stream);
    }
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    PluginFieldCollection const* getFieldsToSerialize() noexcept override {
        serialized_.clear();
        int32_t const* at = values_.data();
        for (Field const& field : Op::kFields) {
            serialized_.emplace_back(field.name, at, nvinfer1::PluginFieldType::kINT32, field.count);
            at += field.count;
        }
        collection_ = {(int32_t)serialized_.size(), serialized_.data()};
        return &collection_;
    }

private:
    Values values_;
    int32_t count_ = Op::kMost;
    std::vector<PluginField> serialized_;
    PluginFieldCollection collection_{};
};

template <typename Op> class Creator final : public nvinfer1::IPluginCreatorV3One {
public:
    char const* getPluginName() const noexcept override { return Op::kName; }
    char const* getPluginVersion() const noexcept override { return Op::kVersion; }
    char const* getPluginNamespace() const noexcept override { return Op::kNamespace; }
    PluginFieldCollection const* getFieldNames() noexcept override { return field_names<Op>(); }
    nvinfer1::IPluginV3* createPlugin(char const*, PluginFieldCollection const* fields, nvinfer1::TensorRTPhase) noexcept override {
        Values values;
        std::string const reason = read<Op>(fields, values);
        if (reason.empty()) return new Plugin<Op>(std::move(values));
        detail::report(Op::kName, reason);
        return nullptr;
    }
};

#endif

// Registers a creator with the TensorRT of the process.
template <typename Op> struct Registration {
    Registration() {
        using Get = nvinfer1::IPluginRegistry* (*)();
        auto get = reinterpret_cast<Get>(detail::symbol("getPluginRegistry"));
        if (!get) {
            fprintf(stderr, "%s: no TensorRT is loaded in this process; load it before this library\n", Op::kName);
            return;
        }
        static Creator<Op> creator;
        get()->registerCreator(creator, Op::kNamespace);
    }
};

}  // namespace onnx_rewrite

#define ONNX_REWRITE_PLUGIN(Op) \
    static ::onnx_rewrite::Registration<Op> const registration_of_##Op {}

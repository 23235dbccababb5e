// Runs an engine of TensorRT 8.6 to 11 whose plugins are in libraries of their own, from C++:
//
//   g++ -std=c++17 run_engine.cpp -ITensorRT/include -I/usr/local/cuda/include -L/usr/local/cuda/lib64
//       -lcudart -ldl -l:libnvinfer.so.8 -o run_engine
//   ./run_engine model.engine libonnx_rewrite_deform_conv.so x.bin y.bin
//
// Inputs of the engine, fixed in shape, are read from one file, one behind the other; outputs are written alike.
#include <NvInfer.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <vector>

struct Logger : nvinfer1::ILogger {
    void log(Severity severity, char const* text) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << text << "\n";
    }
};

int main(int count, char** words) {
    if (count != 5) return std::cerr << "usage: run_engine ENGINE PLUGIN.so INPUTS OUTPUTS\n", 2;
    // All that a plugin takes: its library registers it with the TensorRT of the process.
    if (!dlopen(words[2], RTLD_NOW | RTLD_GLOBAL)) return std::cerr << dlerror() << "\n", 1;
    std::ifstream file(words[1], std::ios::binary), inputs(words[3], std::ios::binary);
    std::vector<char> const data{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(data.data(), data.size()));
    if (!engine) return 1;
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
    struct Output { void* device; size_t bytes; };
    std::vector<Output> outputs;
    for (int i = 0; i < engine->getNbIOTensors(); ++i) {
        char const* const name = engine->getIOTensorName(i);
        nvinfer1::Dims const shape = engine->getTensorShape(name);
        auto const type = engine->getTensorDataType(name);
        size_t bytes = type == nvinfer1::DataType::kHALF ? 2 : 4;
        for (int axis = 0; axis < shape.nbDims; ++axis) bytes *= shape.d[axis];
        void* device = nullptr;
        cudaMalloc(&device, bytes);
        if (engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT) {
            std::vector<char> host(bytes);
            if (!inputs.read(host.data(), bytes)) return std::cerr << words[3] << " is too short\n", 1;
            cudaMemcpy(device, host.data(), bytes, cudaMemcpyHostToDevice);
        } else outputs.push_back({device, bytes});
        context->setTensorAddress(name, device);
    }
    cudaStream_t stream;
    cudaEvent_t begin, end;
    cudaStreamCreate(&stream), cudaEventCreate(&begin), cudaEventCreate(&end);
    for (int i = 0; i < 120; ++i) {
        if (i == 20) cudaEventRecord(begin, stream);
        if (!context->enqueueV3(stream)) return 1;
    }
    cudaEventRecord(end, stream);
    if (cudaStreamSynchronize(stream) != cudaSuccess) return std::cerr << "the engine does not run\n", 1;
    float milliseconds = 0;
    cudaEventElapsedTime(&milliseconds, begin, end);
    std::ofstream found(words[4], std::ios::binary);
    for (Output const& one : outputs) {
        std::vector<char> host(one.bytes);
        cudaMemcpy(host.data(), one.device, one.bytes, cudaMemcpyDeviceToHost);
        found.write(host.data(), one.bytes);
    }
    std::cout << milliseconds / 100 << " ms\n";
}

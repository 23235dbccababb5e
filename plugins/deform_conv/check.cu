// Compares every tactic with the direct kernel on small problems: a program without dependencies, for compute-sanitizer
// and for machines without Python.   nvcc -std=c++17 check.cu kernel.cu -o check && ./check
//
//   check [TYPE [TACTIC]]        all problems; of one type (fp32, tf32, fp16, bf16), or one tactic too
//   check tiny [TYPE [TACTIC]]   one problem of a few thread blocks that comes through every loop, for the slow tools
#include "kernel.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <iterator>
#include <random>
#include <vector>

namespace {

using namespace onnx_rewrite;

void must(cudaError_t error, char const* what) {
    if (error == cudaSuccess) return;
    fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
    exit(2);
}

// n c h w, m oh ow, kh kw, strides, begin pads, dilations, groups, offset groups
DeformConv const kProblems[] = {
    {1, 64, 9, 11, 64, 9, 11, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},
    {2, 48, 7, 20, 70, 7, 20, 3, 3, 1, 1, 1, 1, 1, 1, 1, 2},
    {1, 130, 12, 9, 33, 6, 5, 3, 2, 2, 2, 1, 0, 1, 1, 1, 1},
    {3, 96, 5, 37, 300, 5, 37, 4, 3, 1, 1, 2, 1, 1, 1, 1, 3},
    {2, 60, 8, 8, 90, 8, 8, 3, 3, 1, 1, 2, 2, 2, 2, 3, 2},
    {1, 3, 6, 6, 5, 6, 6, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1},
    {1, 256, 16, 18, 256, 16, 18, 5, 3, 1, 1, 2, 1, 1, 1, 1, 1},
};

// Three chunks of channels in fp16 and five in fp32, more taps than a table holds, filters that fill no tile.
DeformConv const kTiny[] = {{1, 132, 5, 6, 70, 4, 5, 4, 3, 1, 1, 1, 0, 1, 1, 1, 1}};

char const* wanted_type = nullptr;
int wanted_tactic = -2;
bool tiny = false;

template <typename T> float to_float(T v) { return (float)v; }

template <typename T> T* upload(std::vector<float> const& values) {
    std::vector<T> typed(values.begin(), values.end());
    T* device = nullptr;
    must(cudaMalloc(&device, typed.size() * sizeof(T) + 16), "cudaMalloc");
    must(cudaMemcpy(device, typed.data(), typed.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
    return device;
}

template <typename T> std::vector<float> download(T const* device, size_t count) {
    std::vector<T> typed(count);
    must(cudaMemcpy(typed.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost), "copy back");
    std::vector<float> values;
    for (T v : typed) values.push_back(to_float(v));
    return values;
}

template <typename T> int check(Type type, Math math, double tolerance, char const* name) {
    if (wanted_type && strcmp(wanted_type, name)) return 0;
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    auto draw = [&](size_t count, float scale) {
        std::vector<float> values(count);
        for (float& v : values) v = scale * normal(random);
        return values;
    };
    int failed = 0, ran = 0;
    double worst = 0;
    for (DeformConv const& p : tiny ? std::vector<DeformConv>(std::begin(kTiny), std::end(kTiny))
                                    : std::vector<DeformConv>(std::begin(kProblems), std::end(kProblems))) {
        size_t const taps = p.kh * p.kw, plane = p.oh * p.ow, out = (size_t)p.n * p.m * plane;
        T* const x = upload<T>(draw((size_t)p.n * p.c * p.h * p.w, 1.f));
        T* const weight = upload<T>(draw(p.m * (p.c / p.groups) * taps, 0.1f));
        T* const offset = upload<T>(draw(p.n * p.offset_groups * taps * 2 * plane, 2.f));
        T* const bias = upload<T>(draw(p.m, 1.f));
        T* const mask = upload<T>(draw(p.n * p.offset_groups * taps * plane, 1.f));
        T* y = nullptr;
        must(cudaMalloc(&y, out * sizeof(T)), "cudaMalloc");
        must(deform_conv(p, type, math, (int)Tactic::kDirect, x, weight, offset, bias, mask, y, nullptr, 0), "direct");
        std::vector<float> const wanted = download(y, out);
        std::vector<int> tactics{-1, 0, 1};
        for (int shape = 0; shape < 7; ++shape)  // each tile, and as shared by two and three blocks
            for (int parts : {0, 2, 3}) tactics.push_back((int)Tactic::kTensor + shape + parts * 128);
        for (int tactic : tactics) {
            if (wanted_tactic != -2 && tactic != wanted_tactic) continue;
            size_t const bytes = workspace_size(p, type, math, tactic);
            if (bytes == 0 && tactic != (int)Tactic::kAuto) continue;
            char* workspace = nullptr;
            must(cudaMalloc(&workspace, bytes + 1), "cudaMalloc");
            must(cudaMemset(y, 0xff, out * sizeof(T)), "memset");
            must(deform_conv(p, type, math, tactic, x, weight, offset, bias, mask, y, workspace, 0), "deform_conv");
            must(cudaDeviceSynchronize(), "run");
            std::vector<float> const found = download(y, out);
            double error = 0, norm = 0;
            for (size_t i = 0; i < out; ++i) {
                error += (found[i] - wanted[i]) * (double)(found[i] - wanted[i]);
                norm += wanted[i] * (double)wanted[i];
            }
            error = sqrt(error / norm);
            ++ran;
            if (tiny) printf("%s tactic %d: relative error %.2g\n", name, tactic, error);
            if (error > worst) worst = error;
            if (!(error <= tolerance)) {
                ++failed;
                printf("%s: tactic %d, c %d m %d: error %g\n", name, tactic, p.c, p.m, error);
            }
            must(cudaFree(workspace), "cudaFree");
        }
        for (T* each : {x, weight, offset, bias, mask, y}) must(cudaFree(each), "cudaFree");
    }
    printf("%s: %d runs, %d failed, worst relative error %.2g\n", name, ran, failed, worst);
    return failed;
}

}  // namespace

int main(int count, char** words) {
    int at = 1;
    if (at < count && !strcmp(words[at], "tiny")) tiny = true, ++at;
    if (at < count) wanted_type = words[at++];
    if (at < count) wanted_tactic = atoi(words[at++]);
    // The direct kernel rounds once, a tile rounds every sample too; TF32 has the eleven bits of fp16.
    int failed = check<float>(Type::kFloat, Math::kExact, 3e-6, "fp32");
    failed += check<float>(Type::kFloat, Math::kTF32, 1e-3, "tf32");
    failed += check<__half>(Type::kHalf, Math::kExact, 2e-3, "fp16");
    failed += check<__nv_bfloat16>(Type::kBFloat16, Math::kExact, 8e-3, "bf16");
    return failed ? 1 : 0;
}

// Runs the kernels of deformable convolution, emulated, and compares them with the definition in double precision.
// Prints a line for each problem; the exit status is how many runs failed.
#include "device.h"

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "schedule.h"
#include "tensor.cuh"

#include <random>

namespace {

using namespace onnx_rewrite;
using emulation::launch;

// n c h w, m oh ow, kh kw, strides, begin pads, dilations, groups, offset groups
DeformConv const kProblems[] = {
    {1, 72, 5, 7, 40, 5, 7, 3, 3, 1, 1, 1, 1, 1, 1, 1, 1},    // chunks, the last one not full
    {2, 96, 3, 5, 270, 3, 5, 4, 3, 1, 1, 2, 1, 1, 1, 1, 3},   // more taps than a table holds, filters that fill no tile
    {1, 64, 5, 6, 24, 5, 6, 3, 3, 1, 1, 1, 1, 1, 1, 4, 4},    // groups with offsets of their own
    {1, 36, 4, 6, 30, 2, 3, 2, 3, 2, 2, 1, 1, 1, 1, 2, 6},    // several offset groups in a group
};

template <bool kSplit> void run(Work const& work, std::vector<float> const (&in)[5], float* y, char* workspace) {
    Plan const& plan = work.plan;
    float const *x = in[0].data(), *weight = in[1].data(), *offset = in[2].data(), *bias = in[3].data(), *mask = in[4].data();
    for (int i = 0; i < work.count; ++i) {
        Launch const& l = work.launches[i];
        std::function<void()> kernel;
        if (l.kind == Kind::kPrepare)
            kernel = [&] { prepare_kernel<float, true>(plan, l.image_blocks, l.frame_blocks, x, weight, workspace); };
        if (l.kind == Kind::kFinish) kernel = [&] { finish_kernel<float>(plan, l.parts, workspace, bias, y); };
#define SHAPE(I, N, WM, WK, STAGES, TURN, ALONE) \
    if constexpr (!kSplit || comes_in_two_parts(N)) \
        if (l.kind == Kind::kTensor && l.shape == I) \
            kernel = [&] { tensor_kernel<float, false, kSplit, N, WM, WK, STAGES>(plan, l.first, workspace, offset, bias, mask, y); };
        ONNX_REWRITE_TILES(SHAPE)
        bool const tensor = l.kind == Kind::kTensor;
        launch({(int)l.blocks, tensor ? l.parts : 1, 1}, l.threads, tensor ? l.shared : 32 << 10, kernel);
    }
}

// The definition. A corner outside the image is not there.
std::vector<double> wanted_of(DeformConv const& p, std::vector<float> const (&in)[5]) {
    int const taps = p.kh * p.kw, plane = p.oh * p.ow, own = p.c / p.groups;
    std::vector<double> found;
    for (int i = 0; i < p.n * p.m * plane; ++i) {
        int const n = i / (p.m * plane), m = i / plane % p.m, o = i % plane;
        double sum = in[3][m];
        for (int k = 0; k < own * taps; ++k) {
            int const tap = k % taps, c = m / (p.m / p.groups) * own + k / taps, group = c / (p.c / p.offset_groups);
            size_t const at = ((size_t)n * p.offset_groups + group) * taps + tap;
            float const y = (float)(o / p.ow * p.stride_h - p.pad_top + tap / p.kw * p.dilation_h) + in[2][at * 2 * plane + o];
            float const x = (float)(o % p.ow * p.stride_w - p.pad_left + tap % p.kw * p.dilation_w) + in[2][(at * 2 + 1) * plane + o];
            if (!(y > -1 && x > -1 && y < p.h && x < p.w)) continue;
            double sample = 0;
            for (int corner = 0; corner < 4; ++corner) {
                int const cy = (int)floorf(y) + corner / 2, cx = (int)floorf(x) + corner % 2;
                if (cy < 0 || cx < 0 || cy >= p.h || cx >= p.w) continue;
                sample += (1 - fabs(y - cy)) * (1 - fabs(x - cx)) * in[0][(((size_t)n * p.c + c) * p.h + cy) * p.w + cx];
            }
            sum += sample * in[4][at * plane + o] * in[1][((size_t)m * own + k / taps) * taps + tap];
        }
        found.push_back(sum);
    }
    return found;
}

int check(DeformConv const& p, std::vector<int> const& tactics) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    size_t const taps = p.kh * p.kw, points = (size_t)p.n * p.offset_groups * taps * p.oh * p.ow;
    size_t const sizes[5] = {(size_t)p.n * p.c * p.h * p.w, p.m * (p.c / p.groups) * taps, 2 * points, (size_t)p.m, points};
    float const scales[5] = {1.f, 0.1f, 2.f, 1.f, 1.f};
    std::vector<float> in[5];
    for (int i = 0; i < 5; ++i)
        for (size_t k = 0; k < sizes[i]; ++k) in[i].push_back(scales[i] * normal(random));
    if (p.groups > 1) in[0][8] = NAN;  // stays in its group
    std::vector<double> const wanted = wanted_of(p, in);
    Device const device{9, 0, 132, 232448};
    int failed = 0, ran = 0;
    double worst = 0;
    for (int split = 0; split < 2; ++split) {
        for (int tactic : tactics) {
            if (split && tactic % 2 == 0) continue;
            Work const work = work_of(p, Type::kFloat, split ? Math::kExact : Math::kTF32, tactic, device, true);
            if (work.count <= 0 || work.launches[0].kind != Kind::kPrepare) continue;
            std::vector<char> memory(work.plan.bytes + 1024, (char)0xff);
            char* const workspace = memory.data() + (1024 - (uintptr_t)memory.data() % 1024) % 1024;
            std::vector<float> y(wanted.size(), -1e30f);
            if (split) run<true>(work, in, y.data(), workspace);
            else run<false>(work, in, y.data(), workspace);
            double error = 0, size = 0;
            for (size_t i = 0; i < y.size(); ++i) {
                if (std::isnan(wanted[i]) && std::isnan(y[i])) continue;
                error += (y[i] - wanted[i]) * (y[i] - wanted[i]), size += wanted[i] * wanted[i];
            }
            error = sqrt(error / size), ++ran, worst = std::max(worst, error);
            if (error <= 2e-6) continue;  // products and sums of float; no rounding to TF32 here. False for NaN, too.
            ++failed;
            printf("c %d m %d groups %d %d: tactic %d, split %d: error %g\n", p.c, p.m, p.groups, p.offset_groups, tactic, split, error);
        }
    }
    printf("c %d m %d groups %d %d: %d runs, worst relative error %.2g\n", p.c, p.m, p.groups, p.offset_groups, ran, worst);
    return failed;
}

}  // namespace

int main() {
    int failed = 0;
    // What is chosen, every tile, and some as shared by two or three blocks; fp32 in three products by every other.
    std::vector<int> tactics{-1};
    for (int i = 0; i < kShapeCount; ++i) tactics.push_back((int)Tactic::kTensor + i);
    for (int i : {0, 3, 6}) tactics.push_back((int)Tactic::kTensor + i + (2 + i % 2) * kParts);
    for (DeformConv const& p : kProblems) failed += check(p, tactics);
    return failed;
}

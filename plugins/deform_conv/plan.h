// What is decided before a kernel starts: how the problem is cut, which kernels run, on how many blocks. Plain C++.
// Kernels take `Plan` as a parameter; `schedule.h`, for hosts alone, chooses. `runtime/plan.py` says the same in Python.
#pragma once

#include "problem.h"

#ifdef __CUDACC_RTC__
typedef signed long long int64_t;
typedef unsigned long long uint64_t;
typedef unsigned int uint32_t;
typedef unsigned short uint16_t;
#else
#include <stddef.h>
#include <stdint.h>
#endif

#ifdef __CUDACC__
#define ONNX_REWRITE_BOTH __host__ __device__
#else
#define ONNX_REWRITE_BOTH
#endif

// Two libraries in one process must not take each other's kernels, so names are local; a compiler at run time is asked for
// kernels by name.
#ifdef __CUDACC_RTC__
#define ONNX_REWRITE_LOCAL_BEGIN
#define ONNX_REWRITE_LOCAL_END
#else
#define ONNX_REWRITE_LOCAL_BEGIN namespace {
#define ONNX_REWRITE_LOCAL_END }
#endif

namespace onnx_rewrite {
ONNX_REWRITE_LOCAL_BEGIN

constexpr int kRowBytes = 128;   // of one stage: a row of the weight tile, a pixel's channels; the width of the swizzle
constexpr int kTapGroup = 9;     // taps whose sampling points are kept in shared memory at a time
constexpr int kStrip = 16;       // output positions are numbered in strips of this width, so that a tile is a patch
constexpr int kEntryBytes = 16;  // of one sampling point in shared memory
constexpr int kPartialBytes = 8 << 20;  // at most, of sums that several blocks compute parts of

ONNX_REWRITE_BOTH constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// What the kernels derive from the sizes. Channels fall into blocks, the largest runs that lie in one group and one
// offset group; each is padded to whole chunks of kRowBytes. A stage is one chunk at one tap.
struct Plan {
    DeformConv p;
    int taps, ohw, positions;
    int blocks_per_group, block_channels, chunk, chunks;  // chunk: channels per stage; chunks: per block
    int channels;                                         // per pixel in the workspace, padding included
    int pitch, image_pixels;                              // of the framed image
    int filters, filter_tile, filter_tiles;               // per group
    int copies;                                           // of the weights: 2 where each is a sum of two numbers
    int stages;                                           // per group
    int64_t weight_offset, partial_offset, bytes;         // where weights and partial sums begin in the workspace; its size
};

// FFMA's tiles.
constexpr int kSimtFilters = 128, kSimtPositions = 128, kSimtThreads = 256;
constexpr int kSimtDepth = 32;  // channels at a time in shared memory, as fp32
constexpr int kSimtShared = kSimtDepth * (kSimtFilters + kSimtPositions) * 4 + kTapGroup * kSimtPositions * kEntryBytes;

// Tiles of N filters and 64 * WM positions on tensor cores. WM warpgroups lie beside each other along positions; WK of them
// share the stages of a tile and add their sums at the end. One more warp brings weights, STAGES steps ahead. COPIES is 2
// where weights come in two parts.
template <int N, int WM, int WK, int STAGES, int COPIES = 1> struct Tile {
    static constexpr int kPositions = 64 * WM, kConsumers = 128 * WM * WK;
    // Registers are dealt out by warpgroups: sums of 256 numbers a thread fit only if the warp with the weights gives its
    // own away.
    static constexpr bool kDealRegisters = N * COPIES == 256 && kConsumers == 256;
    static constexpr int kThreads = kConsumers + (kDealRegisters ? 128 : 32);
    static constexpr int kPart = N * kRowBytes, kBytes = kPart * COPIES, kSums = kPositions + 4;
    static constexpr int kRing = STAGES * WK * kBytes, kStaging = 64 * kSums * 4;
    static constexpr int kTable = ((kRing > kStaging ? kRing : kStaging) + 15) / 16 * 16;
    static constexpr int kBarriers = kTable + kTapGroup * kPositions * kEntryBytes;
    static constexpr int kShared = 1024 + kBarriers + 2 * STAGES * 8;
};

// N, WM, WK, STAGES; and what the choice of a tile goes by: microseconds for a turn of the loop on an H100, where every
// multiprocessor has many such blocks to run, and where it has one alone, from the measurements in README.md.
#define ONNX_REWRITE_TILES(X) \
    X(0, 256, 2, 1, 3, 1.29, 1.08) \
    X(1, 128, 2, 1, 4, 1.05, 0.87) \
    X(2, 128, 1, 1, 4, 0.79, 0.68) \
    X(3, 128, 1, 2, 3, 1.19, 1.05) \
    X(4, 64, 2, 1, 4, 0.83, 0.75) \
    X(5, 64, 1, 1, 4, 0.40, 0.58) \
    X(6, 64, 1, 2, 4, 0.95, 0.89)

// Sums of 256 filters and of what they are added to do not fit a thread's registers.
ONNX_REWRITE_BOTH constexpr bool comes_in_two_parts(int filters) { return filters <= 128; }

ONNX_REWRITE_LOCAL_END
}  // namespace onnx_rewrite

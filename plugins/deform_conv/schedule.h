// Which kernels run a problem, and on how many blocks; for hosts.
#pragma once

#include "plan.h"

namespace onnx_rewrite {
namespace {

// `parts`: how many thread blocks share a tile's channels.
inline Plan make_plan(DeformConv const& p, int element, int filter_tile, int copies, int parts) {
    Plan plan{};
    plan.p = p;
    plan.taps = p.kh * p.kw;
    plan.ohw = p.oh * p.ow;
    plan.positions = p.n * plan.ohw;
    int a = p.groups, b = p.offset_groups;
    while (b) { int r = a % b; a = b; b = r; }
    int const blocks = p.groups / a * p.offset_groups;
    plan.blocks_per_group = blocks / p.groups;
    plan.block_channels = p.c / blocks;
    plan.chunk = kRowBytes / element;
    plan.chunks = ceil_div(plan.block_channels, plan.chunk);
    plan.channels = blocks * plan.chunks * plan.chunk;
    plan.pitch = p.w + 1;
    plan.image_pixels = (p.h + 3) * plan.pitch + 1;
    plan.filters = p.m / p.groups;
    plan.filter_tile = filter_tile;
    plan.filter_tiles = ceil_div(plan.filters, filter_tile);
    plan.copies = copies;
    plan.stages = plan.blocks_per_group * plan.chunks * plan.taps;
    int64_t const image = (int64_t)p.n * plan.image_pixels * plan.channels * element;
    plan.weight_offset = (image + 1023) / 1024 * 1024;
    plan.partial_offset = plan.weight_offset
        + (int64_t)p.groups * plan.filter_tiles * plan.stages * filter_tile * copies * kRowBytes;
    plan.bytes = plan.partial_offset + (parts > 1 ? (int64_t)parts * p.m * plan.positions * 4 : 0);
    return plan;
}

struct Shape { int filters, positions, depth, stages; double turn, alone; int threads, shared, threads_of_two, shared_of_two; };

#define ONNX_REWRITE_SHAPE(I, N, WM, WK, STAGES, TURN, ALONE) \
    {N, 64 * WM, WK, STAGES, TURN, ALONE, Tile<N, WM, WK, STAGES>::kThreads, Tile<N, WM, WK, STAGES>::kShared, \
        Tile<N, WM, WK, STAGES, 2>::kThreads, Tile<N, WM, WK, STAGES, 2>::kShared},
constexpr Shape kShapes[] = {ONNX_REWRITE_TILES(ONNX_REWRITE_SHAPE)};
#undef ONNX_REWRITE_SHAPE
constexpr int kShapeCount = sizeof(kShapes) / sizeof(kShapes[0]);
// Added to a tactic: fp16 interpolates in fp32; and, times kParts, how many blocks share a tile's channels, if not one.
constexpr int kWide = 64, kParts = 128, kMostParts = 8;

inline int shape_of(int tactic) { return (tactic & (kWide - 1)) - (int)Tactic::kTensor; }
inline int parts_of(int tactic) { return tactic > kParts ? tactic / kParts : 1; }

struct Device { int major, minor, processors, shared; };

inline int element_of(Type type) { return type == Type::kFloat ? 4 : 2; }

// Whether fp32 as three products of TF32 beats FFMA: where tensor cores multiply TF32 more than three times as fast, which
// those of data centres do, and others do not.
inline bool fast_tf32(Device const& device) { return device.major == 9 || ((device.major == 8 || device.major == 10) && device.minor == 0); }

inline int copies_of(Type type, Math math, int tactic) {
    return shape_of(tactic) >= 0 && type == Type::kFloat && math == Math::kExact ? 2 : 1;
}

inline int shared_of(int shape, int copies) { return copies == 1 ? kShapes[shape].shared : kShapes[shape].shared_of_two; }

inline bool fits(int shape, int copies, Device const& device) {
    return shared_of(shape, copies) <= device.shared && (copies == 1 || comes_in_two_parts(kShapes[shape].filters));
}

// Whether positions, pixels and thread blocks can be numbered in 32 bits, which the plan's own fields then are.
inline bool small_enough(Plan const& plan, int element) {
    DeformConv const& p = plan.p;
    int64_t const limit = (int64_t)1 << 31;
    int64_t const image = ((int64_t)p.h + 3) * ((int64_t)p.w + 1) + 1, plane = (int64_t)p.oh * p.ow;
    return image < limit && plane < limit && p.n * image < limit && p.n * plane < limit - 1024
        && ((int64_t)p.w + 1) * plan.channels * element < limit
        && (p.n * image / 64 + p.n) * (plan.channels * element / kRowBytes) < limit / 2;
}

// Channels are padded to whole stages and filters to whole tiles: below a quarter of real work no tile pays.
inline bool thin(Plan const& plan) { return plan.block_channels * 4 < plan.chunk || plan.filters < 8; }

// How positions are shared out: the first `positions` go to tiles of one shape, in whole waves of thread blocks, and the
// rest to tiles of another, if a last wave would leave most multiprocessors idle.
struct Schedule { int positions, rest_shape; double time; };

inline Schedule schedule(Plan const& plan, int shape, int parts, Device const& device) {
    // Of the block with most stages.
    int const stages = plan.stages / plan.chunks * ceil_div(plan.chunks, parts);
    auto turns = [&](Shape const& s, int64_t blocks) {
        // A turn is shorter than alone where two blocks take turns on a multiprocessor: two with weights in two parts do
        // not fit one's registers.
        bool const alone = blocks <= device.processors || (plan.copies == 2 && s.turn < s.alone);
        return ceil_div(stages, s.depth) * (alone ? s.alone : s.turn) + 3.0;
    };
    Shape const& s = kShapes[shape];
    int const columns = plan.p.groups * plan.filter_tiles;
    int64_t const blocks = (int64_t)ceil_div(plan.positions, s.positions) * columns * parts;
    int64_t const waves = (blocks + device.processors - 1) / device.processors;
    Schedule best{plan.positions, -1, (double)waves * turns(s, blocks)};
    // One more launch, and what is written and read again, at 3 TB/s in L2.
    if (parts > 1) best.time += 4.0 + (double)parts * plan.p.m * plan.positions * 8.0 / 3e6;
    if (waves < 2 || parts > 1) return best;
    int64_t const whole = (waves - 1) * device.processors / columns * s.positions;
    if (whole <= 0 || whole >= plan.positions) return best;
    int const rest = plan.positions - (int)whole;
    double const before = (double)(waves - 1) * turns(s, blocks) + 4.0;  // one more launch
    for (int i = 0; i < kShapeCount; ++i) {
        Shape const& r = kShapes[i];
        if (plan.filter_tile % r.filters || !fits(i, plan.copies, device)) continue;
        int64_t const rest_blocks = (int64_t)ceil_div(rest, r.positions) * columns * (plan.filter_tile / r.filters);
        double const time = before + (double)((rest_blocks + device.processors - 1) / device.processors) * turns(r, rest_blocks);
        if (time < best.time) best = {(int)whole, i, time};
    }
    return best;
}

// Whether so many blocks may share the channels of a tile: each has a chunk of its own, and their sums do not take much.
inline bool shares(Plan const& plan, int parts) {
    return parts <= plan.chunks && (parts == 1 || (int64_t)parts * plan.p.m * plan.positions * 4 <= kPartialBytes);
}

// The tactic that `kAuto` stands for.
inline int choose(DeformConv const& p, Type type, Math math, Device const& device) {
    Plan const plan = make_plan(p, element_of(type), 64, 1, 1);
    if (thin(plan) || !small_enough(plan, element_of(type))) return (int)Tactic::kDirect;
    bool const tensor = device.major >= 8 && (type != Type::kFloat || math == Math::kTF32 || (math == Math::kExact && fast_tf32(device)));
    if (!tensor) return (int)Tactic::kSimt;
    int const copies = copies_of(type, math, (int)Tactic::kTensor);
    int best = -1;
    double least = 0;
    for (int i = 0; i < kShapeCount; ++i) {
        if (!fits(i, copies, device)) continue;
        for (int parts = 1; parts <= kMostParts && shares(plan, parts); ++parts) {
            double const time = schedule(make_plan(p, element_of(type), kShapes[i].filters, copies, parts), i, parts, device).time;
            if (best >= 0 && time >= least) continue;
            best = (int)Tactic::kTensor + i + (parts > 1 ? parts * kParts : 0);
            least = time;
        }
    }
    return best < 0 ? (int)Tactic::kSimt : best;
}

// Whether a tactic can run a problem on a device.
inline bool runs(Plan const& plan, Type type, Math math, int tactic, Device const& device) {
    if (tactic == (int)Tactic::kDirect) return true;
    if (!small_enough(plan, element_of(type))) return false;
    if (tactic == (int)Tactic::kSimt) return kSimtShared <= device.shared;
    if (tactic >= 0 && tactic & kWide && type != Type::kHalf) return false;
    int const shape = shape_of(tactic);
    return shape >= 0 && shape < kShapeCount && shares(plan, parts_of(tactic)) && device.major >= 8 && fits(shape, plan.copies, device)
        && (type != Type::kFloat || math != Math::kFFMA);
}

inline int filter_tile_of(int tactic) {
    int const shape = shape_of(tactic);
    return shape >= 0 && shape < kShapeCount ? kShapes[shape].filters : kSimtFilters;
}

// One kernel and its blocks. `shape` is the tile's; `first` is where its positions begin. For `prepare`, how many of the
// blocks read the image, and how many write its frame. `parts` blocks share a tile.
enum class Kind : int { kDirect = 0, kPrepare = 1, kSimt = 2, kTensor = 3, kFinish = 4 };
struct Launch { Kind kind; int shape, first, image_blocks, frame_blocks, threads, shared; int64_t blocks; int parts = 1; };

// Everything that is done for a problem: at most four launches; none if the tactic cannot run it.
struct Work { int tactic, count; Plan plan; Launch launches[4]; };

// `aligned`: x begins at a multiple of 16 bytes.
inline Work work_of(DeformConv const& p, Type type, Math math, int tactic, Device const& device, bool aligned) {
    int const element = element_of(type);
    if (tactic == (int)Tactic::kAuto) tactic = choose(p, type, math, device);
    int const parts = parts_of(tactic);
    Work work{tactic, 0, make_plan(p, element, filter_tile_of(tactic), copies_of(type, math, tactic), parts), {}};
    Plan const& plan = work.plan;
    auto add = [&](Launch launch) {
        if (work.count >= 0 && launch.blocks < (int64_t)1 << 31) work.launches[work.count++] = launch;
        else work.count = -1;  // too many blocks for a grid
    };
    if (!runs(plan, type, math, tactic, device)) return work;
    if (tactic == (int)Tactic::kDirect) {
        int64_t const blocks = ((int64_t)p.n * p.m * p.oh * p.ow + 255) / 256, most = 1 << 20;
        add({Kind::kDirect, 0, 0, 0, 0, 256, 0, blocks < most ? blocks : most});
        return work;
    }
    // A row of x begins at a multiple of 16 bytes if its planes are that long: then it is read in vectors.
    bool const vectors = aligned && (int64_t)p.h * p.w * element % 16 == 0;
    int const pixels = vectors ? p.h * p.w : plan.image_pixels, chunks = plan.channels / plan.chunk;
    int64_t const image = (int64_t)p.n * ceil_div(pixels, 64) * chunks;
    int64_t const frame = vectors ? ((int64_t)p.n * (3 * plan.pitch + 1 + p.h) * chunks * 8 + 255) / 256 : 0;
    int64_t const rows = ((int64_t)p.groups * plan.filter_tiles * plan.stages * plan.filter_tile * 8 + 255) / 256;
    add({Kind::kPrepare, 0, 0, (int)image, (int)frame, 256, 0, image + frame + rows});
    int64_t const columns = (int64_t)p.groups * plan.filter_tiles;
    if (tactic == (int)Tactic::kSimt) {
        add({Kind::kSimt, 0, 0, 0, 0, kSimtThreads, kSimtShared, ceil_div(plan.positions, kSimtPositions) * columns});
        return work;
    }
    auto tiles = [&](int shape, int first, int count) {
        Shape const& s = kShapes[shape];
        add({Kind::kTensor, shape, first, 0, 0, plan.copies == 1 ? s.threads : s.threads_of_two, shared_of(shape, plan.copies),
            ceil_div(count, s.positions) * columns * (plan.filter_tile / s.filters), parts});
    };
    int const shape = shape_of(tactic);
    Schedule const shared_out = schedule(plan, shape, parts, device);
    tiles(shape, 0, shared_out.positions);
    if (shared_out.rest_shape >= 0) tiles(shared_out.rest_shape, shared_out.positions, plan.positions - shared_out.positions);
    if (parts > 1) add({Kind::kFinish, 0, 0, 0, 0, 256, 0, ((int64_t)p.m * plan.positions + 255) / 256, parts});
    return work;
}

// The most workspace that `kAuto` can need for these sizes or smaller n, h, w, oh, ow.
inline int64_t largest_workspace(DeformConv const& p, Type type, Math math) {
    int64_t most = 0;
    for (int filter_tile = 64; filter_tile <= 256; filter_tile *= 2) {
        Plan const plan = make_plan(p, element_of(type), filter_tile, copies_of(type, math, (int)Tactic::kTensor), 1);
        int64_t const bytes = plan.bytes + (plan.chunks > 1 ? kPartialBytes : 0);
        if (!thin(plan) && bytes > most) most = bytes;
    }
    return most;
}

}  // namespace
}  // namespace onnx_rewrite

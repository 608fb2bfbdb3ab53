// What the kernels share: maps of channels, and as many channels at a time as the processor takes.
//
// A map is M rows (image, y, x) of C channels; consecutive rows are `ld` elements apart, which is C
// for a whole map and more for a slice of its channels. Elements are float or bfloat16 (-DELEMENT=),
// all arithmetic is float. PyTorch's Vectorized is what makes one source do for every instruction
// set; compiler flags choose.

#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#ifndef ELEMENT
#define ELEMENT float
#endif

namespace {

using Element = ELEMENT;
using Vec = at::vec::Vectorized<float>;
using i64 = std::int64_t;
constexpr i64 LANES = Vec::size();

constexpr i64 round_up(i64 value, i64 step) { return (value + step - 1) / step * step; }

struct Free {
    void operator()(void *p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;
// So many numbers, not initialised, at the beginning of a cache line.
inline Buffer buffer(i64 count) {
    return Buffer(static_cast<float *>(std::aligned_alloc(64, round_up(count * sizeof(float), 64))));
}

// A row of C channels is taken in vectors; where C is no multiple of LANES the last of them begins
// earlier and overlaps the one before. Fewer than LANES channels are one vector, in part.
struct Whole {
    static constexpr i64 count = LANES;
};
struct Part {
    i64 count;
};
constexpr i64 vectors(i64 channels) { return (channels + LANES - 1) / LANES; }
constexpr i64 offset(i64 vector, i64 channels) {
    return std::max<i64>(0, std::min(vector * LANES, channels - LANES));
}

inline Vec load(const float *from, Whole) { return Vec::loadu(from); }
inline Vec load(const float *from, Part part) { return Vec::loadu(from, part.count); }
inline void store(float *to, Whole, const Vec &value) { value.store(to); }
inline void store(float *to, Part part, const Vec &value) { value.store(to, part.count); }

inline Vec load(const c10::BFloat16 *from, Whole) {
    Vec value;
    at::vec::load_fp32_from_bf16(from, value);
    return value;
}
inline Vec load(const c10::BFloat16 *from, Part part) {
    using Both = at::vec::Vectorized<c10::BFloat16>;
    return std::get<0>(at::vec::convert_bfloat16_float(Both::loadu(from, part.count)));
}
inline void store(c10::BFloat16 *to, Whole, const Vec &value) {
    at::vec::convert_float_bfloat16(value, value).store(to, LANES);
}
inline void store(c10::BFloat16 *to, Part part, const Vec &value) {
    at::vec::convert_float_bfloat16(value, value).store(to, part.count);
}
// The value as a map keeps it.
inline Vec rounded(const Vec &value) {
    if constexpr (std::is_same_v<Element, float>) return value;
    return std::get<0>(at::vec::convert_bfloat16_float(at::vec::convert_float_bfloat16(value, value)));
}

struct Map {
    Element *data;
    i64 ld;
    Element *row(i64 m) const { return data + m * ld; }
    explicit operator bool() const { return data != nullptr; }
};

// body(c, lanes) for each vector of a row.
template <typename Body>
inline void each_vector(i64 channels, const Body &body) {
    if (channels < LANES) return body(0, Part{channels});
    for (i64 c = 0; c <= channels - LANES; c += LANES) body(c, Whole{});
    if (channels % LANES) body(channels - LANES, Whole{});
}

// Rows that are done together: a vector of channels after the other, so that what belongs to a channel
// stays in registers and the rows in the nearest cache.
constexpr i64 ROWS_TOGETHER = 64;

// body(c, lanes)(m) for each vector of each row; the threads share the rows.
template <typename Body>
void each_row(i64 rows, i64 channels, i64 threads, const Body &body) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 begin = 0; begin < rows; begin += ROWS_TOGETHER) {
        const i64 end = std::min(rows, begin + ROWS_TOGETHER);
        each_vector(channels, [&](i64 c, auto lanes) {
            const auto at = body(c, lanes);
            for (i64 m = begin; m < end; ++m) at(m);
        });
    }
}

}  // namespace

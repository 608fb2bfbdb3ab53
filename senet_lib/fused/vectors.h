// What the kernels share: maps of bfloat16 channels, and sixteen of them at a time as float32.
//
// A map is M rows (image, y, x) of C channels; consecutive rows are `ld` elements apart, which is C
// for a whole map and more for a slice of its channels. Needs AVX-512 with BF16.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

using bf16 = std::uint16_t;
using i64 = std::int64_t;
constexpr int LANES = 16;

constexpr i64 round_up(i64 value, i64 step) { return (value + step - 1) / step * step; }

struct Free {
    void operator()(void *p) const { std::free(p); }
};
template <typename T>
using Buffer = std::unique_ptr<T[], Free>;
// So many numbers, not initialised, at the beginning of a cache line.
template <typename T>
Buffer<T> buffer(i64 count) {
    return Buffer<T>(static_cast<T *>(std::aligned_alloc(64, round_up(count * sizeof(T), 64))));
}

struct Map {
    bf16 *data;
    std::int64_t ld;
    bf16 *row(std::int64_t m) const { return data + m * ld; }
    explicit operator bool() const { return data != nullptr; }
};

inline __mmask16 mask_of(std::int64_t left) {
    return left >= LANES ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
}

// All lanes of a vector, known when compiling; where some are left out, a mask stands in its place.
struct All {};

inline __m256i raw(const bf16 *p, All) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)); }
inline __m256i raw(const bf16 *p, __mmask16 mask) {
    return mask == 0xFFFF ? raw(p, All{}) : _mm256_maskz_loadu_epi16(mask, p);
}

inline void store(bf16 *p, All, __m256i v) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v); }
inline void store(bf16 *p, __mmask16 mask, __m256i v) {
    if (mask == 0xFFFF)
        store(p, All{}, v);
    else
        _mm256_mask_storeu_epi16(p, mask, v);
}

inline __m512 widen(__m256i v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

template <typename Lanes>
inline __m512 load(const bf16 *p, Lanes lanes) {
    return widen(raw(p, lanes));
}

inline __m256i narrow(__m512 v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }

// The gradient behind a rectifier with result y, if there is one: d where y > 0.
template <typename Lanes>
inline __m512 behind_rectifier(__m512 d, const Map &y, std::int64_t m, std::int64_t c, Lanes lanes) {
    if (!y) return d;
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(load(y.row(m) + c, lanes), _mm512_setzero_ps(), _CMP_GT_OQ), d);
}

}  // namespace

// What the kernels share: maps of bfloat16 channels, and sixteen of them at a time as float32.
//
// A map is M rows (image, y, x) of C channels; consecutive rows are `ld` elements apart, which is C
// for a whole map and more for a slice of its channels. Needs AVX-512 with BF16.

#pragma once

#include <immintrin.h>

#include <cstdint>
#include <vector>

namespace {

using bf16 = std::uint16_t;
constexpr int LANES = 16;

struct Map {
    bf16 *data;
    std::int64_t ld;
    bf16 *row(std::int64_t m) const { return data + m * ld; }
    explicit operator bool() const { return data != nullptr; }
};

inline __mmask16 mask_of(std::int64_t left) {
    return left >= LANES ? 0xFFFF : static_cast<__mmask16>((1u << left) - 1);
}

inline __m512 load(const bf16 *p, __mmask16 mask) {
    const __m256i raw =
        mask == 0xFFFF ? _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)) : _mm256_maskz_loadu_epi16(mask, p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}

inline __m256i narrow(__m512 v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }

inline __m512 widen(__m256i v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

inline void store(bf16 *p, __mmask16 mask, __m256i v) {
    if (mask == 0xFFFF)
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), v);
    else
        _mm256_mask_storeu_epi16(p, mask, v);
}

// The gradient behind a rectifier with result y, if there is one: d + t where y > 0.
inline __m512 behind_rectifier(const Map &d, const Map &t, const Map *y, std::int64_t m, std::int64_t c,
                               __mmask16 mask) {
    __m512 v = load(d.row(m) + c, mask);
    if (t) v = _mm512_add_ps(v, load(t.row(m) + c, mask));
    if (y == nullptr) return v;
    const __mmask16 on = _mm512_cmp_ps_mask(load(y->row(m) + c, mask), _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_maskz_mov_ps(on, v);
}

}  // namespace

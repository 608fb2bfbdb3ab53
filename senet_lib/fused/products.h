// Matrix products in bfloat16 with float32 sums, and moments of what they make.

#pragma once

#include <algorithm>

#include "vectors.h"

namespace {

constexpr i64 LINE = 32;  // bfloat16 numbers in a cache line

// sum + pair . (even, odd) of each lane: `pair` holds two bfloat16 numbers, `row` two a lane.
inline __m512 dot(__m512 sum, const bf16 *pair, __m512i row) {
    std::int32_t both;
    __builtin_memcpy(&both, pair, 4);
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(both)),
                            reinterpret_cast<__m512bh>(row));
}

// (even_0, odd_0, even_1, odd_1, ...) as bfloat16.
inline __m512i interleave(__m512 even, __m512 odd) {
    const __m512i low = _mm512_cvtepu16_epi32(narrow(even)), high = _mm512_cvtepu16_epi32(narrow(odd));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Channels made are taken up to 64 at a time, as NV vectors of 16.
inline i64 vectors_from(i64 n, i64 channels) { return std::min<i64>(4, (channels - n + LANES - 1) / LANES); }

// c[k][n] += sum over rows of D[row][k] V[row][n], KB by 16 NV of them, or = where they are the
// first. D and V have rows in pairs: [pair][channel][2], so many apart.
template <int KB, int NV>
inline void outer(const bf16 *d, i64 pair_d, const bf16 *v, i64 pair_v, i64 pairs, bool begins, float *c, i64 ldc) {
    __m512 sum[KB][NV];
    for (int k = 0; k < KB; ++k)
        for (int i = 0; i < NV; ++i)
            sum[k][i] = begins ? _mm512_setzero_ps() : _mm512_load_ps(c + k * ldc + i * LANES);
    for (i64 t = 0; t < pairs; ++t, d += pair_d, v += pair_v) {
        __m512i row[NV];
        for (int i = 0; i < NV; ++i) row[i] = _mm512_load_si512(v + i * 2 * LANES);
        for (int k = 0; k < KB; ++k)
            for (int i = 0; i < NV; ++i) sum[k][i] = dot(sum[k][i], d + 2 * k, row[i]);
    }
    for (int k = 0; k < KB; ++k)
        for (int i = 0; i < NV; ++i) _mm512_store_ps(c + k * ldc + i * LANES, sum[k][i]);
}

// Rows of a block in pairs, for the products above, at each of `places` places.
struct Pairs {
    i64 channels, places, place;
    Buffer<bf16> data;
    Buffer<float> even;  // of each channel and place: the even row, until the odd one comes
    Pairs(i64 channels_, i64 block, i64 places_)
        : channels(channels_), places(places_), place(block * channels_ + LINE), data(buffer<bf16>(places * place)),
          even(buffer<float>(places * channels_)) {}
    bf16 *at(i64 p, i64 pair, i64 channel) const { return data.get() + p * place + 2 * (pair * channels + channel); }
    // put(first, channel)(row, p, value) takes the next row of 16 channels.
    auto put(i64 first, i64 channel) const {
        return [first, waiting = even.get() + channel * places, to = at(0, 0, channel), step = place,
                pair = 2 * channels](i64 row, i64 p, __m512 value) {
            const i64 t = first + row;
            if (t % 2 == 0)
                _mm512_store_ps(waiting + p * LANES, value);
            else
                _mm512_store_si512(to + p * step + t / 2 * pair,
                                   interleave(_mm512_load_ps(waiting + p * LANES), value));
        };
    }
    // An even row that no odd one follows is paired with zeros.
    void finish(i64 count) const {
        if (count % 2 == 0) return;
        for (i64 channel = 0; channel < channels; channel += LANES)
            for (i64 p = 0; p < places; ++p) put(count, channel)(0, p, _mm512_setzero_ps());
    }
};

// sum (K, N) += D^T V of a block, or = where it is the first; channels `begin` to `end` of N.
inline void add_products(const Pairs &d, const Pairs &v, i64 p, i64 pairs, bool first, i64 begin, i64 end, i64 N,
                         float *sum) {
    const i64 K = d.channels;
    for (i64 n = begin; n < end; n += 4 * LANES)
        for (i64 k = 0; k < K; k += 4) {
            const auto call = [&](auto add) {
                add(d.at(p, 0, k), 2 * K, v.at(p, 0, n - begin), 2 * v.channels, pairs, first, sum + k * N + n, N);
            };
            switch (vectors_from(n, end)) {
                case 1: call(outer<4, 1>); break;
                case 2: call(outer<4, 2>); break;
                case 3: call(outer<4, 3>); break;
                default: call(outer<4, 4>);
            }
        }
}

// Sums of a block for the mean and variance of each channel, relative to its first row: (3, N) floats.
struct Moments {
    float *origin, *first, *second;
    Moments() : origin(nullptr), first(nullptr), second(nullptr) {}
    Moments(float *sums, i64 N) : origin(sums), first(sums + N), second(sums + 2 * N) {}
    // Rows of 16 channels from n on; `begins` where they are the first of their block.
    template <int COUNT>
    void add(const __m512 (&rows)[COUNT], i64 n, bool begins) const {
        if (first == nullptr) return;
        const __m512 zero = _mm512_setzero_ps();
        const __m512 start = begins ? rows[0] : _mm512_load_ps(origin + n);
        __m512 a = begins ? zero : _mm512_load_ps(first + n), b = begins ? zero : _mm512_load_ps(second + n);
        for (const __m512 value : rows) {
            const __m512 away = _mm512_sub_ps(value, start);
            a = _mm512_add_ps(a, away);
            b = _mm512_fmadd_ps(away, away, b);
        }
        if (begins) _mm512_store_ps(origin + n, start);
        _mm512_store_ps(first + n, a);
        _mm512_store_ps(second + n, b);
    }
};

// The mean and biased variance of each channel from the sums of all blocks of `block` rows, by Chan's
// formula and in their order: the number of threads changes no bit.
inline void join_moments(const float *sums, i64 rows, i64 block, i64 channels, i64 threads, float *mean,
                         float *variance) {
    const i64 N = round_up(channels, LANES), blocks = (rows + block - 1) / block;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 c = 0; c < N; c += LANES) {
        double centre[LANES] = {}, spread[LANES] = {}, seen = 0.0;
        for (i64 b = 0; b < blocks; ++b) {
            const float *of_block = sums + b * 3 * N + c;
            const double more = std::min(block, rows - b * block), share = more / (seen + more);
            for (i64 k = 0; k < LANES; ++k) {
                const double shift = of_block[N + k] / more, away = of_block[k] + shift - centre[k];
                spread[k] += of_block[2 * N + k] - shift * of_block[N + k] + away * away * seen * share;
                centre[k] += away * share;
            }
            seen += more;
        }
        for (i64 k = 0; k < std::min<i64>(LANES, channels - c); ++k) {
            mean[c + k] = static_cast<float>(centre[k]);
            variance[c + k] = static_cast<float>(spread[k] > 0 ? spread[k] / seen : 0);
        }
    }
}

}  // namespace

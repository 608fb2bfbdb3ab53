// 3x3 convolution at stride 1 with zero padding 1, by Winograd's minimal filtering F(2x2, 3x3).
//
// y = A^T [(G w G^T) . (B^T x B)] A over tiles of 2x2 results, each from 4x4 pixels that overlap by
// two: 16 multiplications a tile and pair of channels, where the sum over the taps needs 36. At each
// of the 16 places of the 4x4 plane the sum over channels is a matrix product of V = B^T x B and
// U = G w G^T. The products take bfloat16 and sum in float32; the transforms are float32. Lavin and
// Gray 2016 (arXiv:1509.09308), sections 4.1 and 4.2.
//
// H and W are even. Tiles are counted through the images, row by row. A weight is (out, 9, in),
// float32, as PyTorch's channels_last format lays it out. P = 16 places; K channels are summed over,
// N made.

#include "products.h"

namespace {

constexpr i64 P = 16, TAPS = 9;

struct Plane {
    i64 images, height, width;
    i64 across() const { return width / 2; }
    i64 per_image() const { return height / 2 * across(); }
    i64 tiles() const { return images * per_image(); }
    i64 pixel(i64 image, i64 y, i64 x) const { return (image * height + y) * width + x; }
};

// Tiles `first` to `first + count`, a row of tiles at a time: body(tile - first, image, i, j, tiles), where
// the results of the first tile begin at pixel (2i, 2j).
template <typename Body>
void strips(const Plane &plane, i64 first, i64 count, const Body &body) {
    for (i64 done = 0; done < count;) {
        const i64 rest = (first + done) % plane.per_image(), i = rest / plane.across(), j = rest % plane.across();
        const i64 tiles = std::min(count - done, plane.across() - j);
        body(done, (first + done) / plane.per_image(), i, j, tiles);
        done += tiles;
    }
}

// ---- the transforms, of 16 channels at a time

// One column of B^T x: four pixels above each other, those outside the image zero.
inline void input_column(__m512 (&out)[4], const bf16 *const (&rows)[4], const bool (&inside)[4], bool column,
                         i64 offset, __mmask16 mask) {
    __m512 d[4];
    for (int r = 0; r < 4; ++r)
        d[r] = column && inside[r] ? load(rows[r] + offset, mask) : _mm512_setzero_ps();
    out[0] = _mm512_sub_ps(d[0], d[2]);
    out[1] = _mm512_add_ps(d[1], d[2]);
    out[2] = _mm512_sub_ps(d[2], d[1]);
    out[3] = _mm512_sub_ps(d[1], d[3]);
}

// V = B^T x B of the tiles of a strip: put(tile, place, value).
template <typename Put>
inline void input_strip(const Map &x, const Plane &plane, i64 channel, i64 image, i64 i, i64 j, i64 tiles,
                        __mmask16 mask, const Put &put) {
    const bf16 *rows[4];
    bool inside[4];
    for (int r = 0; r < 4; ++r) {
        const i64 y = 2 * i - 1 + r;
        inside[r] = y >= 0 && y < plane.height;
        rows[r] = x.row(plane.pixel(image, inside[r] ? y : 0, 0)) + channel;
    }
    __m512 c0[4], c1[4], c2[4], c3[4];  // a tile shares two columns with the next
    i64 at = 2 * j - 1;
    input_column(c0, rows, inside, at >= 0, at * x.ld, mask);
    input_column(c1, rows, inside, true, (at + 1) * x.ld, mask);
    for (i64 t = 0; t < tiles; ++t, at += 2) {
        input_column(c2, rows, inside, true, (at + 2) * x.ld, mask);
        input_column(c3, rows, inside, at + 3 < plane.width, (at + 3) * x.ld, mask);
        for (int r = 0; r < 4; ++r) {
            put(t, 4 * r + 0, _mm512_sub_ps(c0[r], c2[r]));
            put(t, 4 * r + 1, _mm512_add_ps(c1[r], c2[r]));
            put(t, 4 * r + 2, _mm512_sub_ps(c2[r], c1[r]));
            put(t, 4 * r + 3, _mm512_sub_ps(c1[r], c3[r]));
            c0[r] = c2[r];
            c1[r] = c3[r];
        }
    }
}

// D = A dy A^T of the tiles of a strip: put(tile, place, value).
template <typename Put>
inline void gradient_strip(const Map &dy, const Plane &plane, i64 channel, i64 image, i64 i, i64 j, i64 tiles,
                           __mmask16 mask, const Put &put) {
    const __m512 zero = _mm512_setzero_ps();
    const bf16 *top = dy.row(plane.pixel(image, 2 * i, 2 * j)) + channel, *bottom = top + plane.width * dy.ld;
    for (i64 t = 0; t < tiles; ++t, top += 2 * dy.ld, bottom += 2 * dy.ld) {
        const __m512 a = load(top, mask), b = load(top + dy.ld, mask);
        const __m512 c = load(bottom, mask), d = load(bottom + dy.ld, mask);
        const __m512 left[4] = {a, _mm512_add_ps(a, c), _mm512_sub_ps(a, c), _mm512_sub_ps(zero, c)};
        const __m512 right[4] = {b, _mm512_add_ps(b, d), _mm512_sub_ps(b, d), _mm512_sub_ps(zero, d)};
        for (int r = 0; r < 4; ++r) {
            put(t, 4 * r + 0, left[r]);
            put(t, 4 * r + 1, _mm512_add_ps(left[r], right[r]));
            put(t, 4 * r + 2, _mm512_sub_ps(left[r], right[r]));
            put(t, 4 * r + 3, _mm512_sub_ps(zero, right[r]));
        }
    }
}

// U = G w G^T.
inline void kernel_transform(const __m512 (&w)[TAPS], __m512 (&u)[P]) {
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 g[4][3];
    for (int c = 0; c < 3; ++c) {
        const __m512 even = _mm512_add_ps(w[c], w[6 + c]);
        g[0][c] = w[c];
        g[1][c] = _mm512_mul_ps(half, _mm512_add_ps(even, w[3 + c]));
        g[2][c] = _mm512_mul_ps(half, _mm512_sub_ps(even, w[3 + c]));
        g[3][c] = w[6 + c];
    }
    for (int r = 0; r < 4; ++r) {
        const __m512 even = _mm512_add_ps(g[r][0], g[r][2]);
        u[4 * r + 0] = g[r][0];
        u[4 * r + 1] = _mm512_mul_ps(half, _mm512_add_ps(even, g[r][1]));
        u[4 * r + 2] = _mm512_mul_ps(half, _mm512_sub_ps(even, g[r][1]));
        u[4 * r + 3] = g[r][2];
    }
}

// G^T u G: the gradient of w from that of U.
inline void kernel_gradient(const __m512 (&u)[P], __m512 (&w)[TAPS]) {
    const __m512 half = _mm512_set1_ps(0.5f);
    __m512 g[3][4];
    for (int q = 0; q < 4; ++q) {
        const __m512 even = _mm512_mul_ps(half, _mm512_add_ps(u[4 + q], u[8 + q]));
        g[0][q] = _mm512_add_ps(u[q], even);
        g[1][q] = _mm512_mul_ps(half, _mm512_sub_ps(u[4 + q], u[8 + q]));
        g[2][q] = _mm512_add_ps(even, u[12 + q]);
    }
    for (int r = 0; r < 3; ++r) {
        const __m512 even = _mm512_mul_ps(half, _mm512_add_ps(g[r][1], g[r][2]));
        w[3 * r] = _mm512_add_ps(g[r][0], even);
        w[3 * r + 1] = _mm512_mul_ps(half, _mm512_sub_ps(g[r][1], g[r][2]));
        w[3 * r + 2] = _mm512_add_ps(even, g[r][3]);
    }
}

// ---- the products of a forward pass

constexpr i64 BLOCK = 48;                     // tiles of a block; a multiple of every TB below
constexpr i64 PLACE = BLOCK * LANES + LINE;   // V of a block: [K / 16][16 places][tile][16]; the odd
constexpr i64 GROUP = P * PLACE;              // line keeps the places in different cache sets

struct Sizes {
    Plane plane;
    i64 in, out;
    i64 pairs() const { return (in + 1) / 2; }
    i64 groups() const { return (in + LANES - 1) / LANES; }
    i64 padded_out() const { return round_up(out, LANES); }
    // U: [place][N / 64][pair of K][up to 64 of N][2], where channels n to n + 64 begin.
    i64 kernel_at(i64 place, i64 n) const { return (place * padded_out() + n) * 2 * pairs(); }
};

// C[tile][n] = sum over k of V[tile][k] U[k][n]: TB tiles by 16 NV channels.
template <int TB, int NV>
inline void product(const bf16 *v, const bf16 *u, i64 pairs, float *c) {
    constexpr i64 TILE = NV * LANES * P + LANES;
    __m512 sum[TB][NV];
    for (int t = 0; t < TB; ++t)
        for (int i = 0; i < NV; ++i) sum[t][i] = _mm512_setzero_ps();
    for (i64 left = pairs; left > 0; left -= LANES / 2, v += GROUP)
        for (i64 k = 0; k < std::min<i64>(left, LANES / 2); ++k, u += NV * 2 * LANES) {
            __m512i row[NV];
            for (int i = 0; i < NV; ++i) row[i] = _mm512_load_si512(u + i * 2 * LANES);
            for (int t = 0; t < TB; ++t)
                for (int i = 0; i < NV; ++i) sum[t][i] = dot(sum[t][i], v + t * LANES + 2 * k, row[i]);
        }
    for (int t = 0; t < TB; ++t)
        for (int i = 0; i < NV; ++i) _mm512_store_ps(c + t * TILE + i * LANES, sum[t][i]);
}

// A^T m A of one tile and 16 channels, written to y; m has `place` floats from one place to the next.
template <i64 place>
inline void output_tile(const float *m, bf16 *y, i64 ld, i64 width, __mmask16 mask, bool begins,
                        const Moments &moments, i64 n) {
    __m512 top[4], bottom[4];
    for (int q = 0; q < 4; ++q) {
        const __m512 m1 = _mm512_load_ps(m + (4 + q) * place), m2 = _mm512_load_ps(m + (8 + q) * place);
        top[q] = _mm512_add_ps(_mm512_load_ps(m + q * place), _mm512_add_ps(m1, m2));
        bottom[q] = _mm512_sub_ps(_mm512_sub_ps(m1, m2), _mm512_load_ps(m + (12 + q) * place));
    }
    const __m512 made[4] = {
        _mm512_add_ps(top[0], _mm512_add_ps(top[1], top[2])),
        _mm512_sub_ps(_mm512_sub_ps(top[1], top[2]), top[3]),
        _mm512_add_ps(bottom[0], _mm512_add_ps(bottom[1], bottom[2])),
        _mm512_sub_ps(_mm512_sub_ps(bottom[1], bottom[2]), bottom[3]),
    };
    store(y, mask, narrow(made[0]));
    store(y + ld, mask, narrow(made[1]));
    store(y + width * ld, mask, narrow(made[2]));
    store(y + (width + 1) * ld, mask, narrow(made[3]));
    moments.add(made, n, begins);
}

// The results of a block's tiles in channels n to n + 16 NV.
template <int TB, int NV>
void make_channels(const Sizes &s, const bf16 *v, const bf16 *u, i64 n, i64 first, i64 count, float *m, const Map &y,
                   const Moments &moments) {
    constexpr i64 TILE = NV * LANES * P + LANES;
    for (i64 p = 0; p < P; ++p)
        for (i64 t = 0; t < count; t += TB)
            product<TB, NV>(v + p * PLACE + t * LANES, u + s.kernel_at(p, n), s.pairs(),
                            m + t * TILE + p * LANES * NV);
    strips(s.plane, first, count, [&](i64 t, i64 image, i64 i, i64 j, i64 tiles) {
        bf16 *to = y.row(s.plane.pixel(image, 2 * i, 2 * j)) + n;
        for (i64 k = 0; k < tiles; ++k)
            for (i64 e = 0; e < NV; ++e)
                output_tile<NV * LANES>(m + (t + k) * TILE + e * LANES, to + 2 * k * y.ld + e * LANES, y.ld,
                                        s.plane.width, mask_of(s.out - n - e * LANES), t + k == 0, moments,
                                        n + e * LANES);
    });
}

}  // namespace

extern "C" {

// U for senet_winograd from a weight (out, 9, in); `out` channels are made from `in`.
void senet_winograd_kernel(const float *w, i64 in, i64 out, i64 threads, bf16 *u) {
    const Sizes s{{}, in, out};
    const i64 pairs_of_group = LANES / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 k = 0; k < s.groups() * LANES; k += LANES) {
        const __mmask16 mask = mask_of(in - k);
        const __mmask8 there = mask_of((std::min<i64>(in - k, LANES) + 1) / 2) & 0xFF;  // pairs
        for (i64 n = 0; n < s.padded_out(); ++n) {
            __m512 taps[TAPS], made[P];
            for (i64 tap = 0; tap < TAPS; ++tap)
                taps[tap] = n < out ? _mm512_maskz_loadu_ps(mask, w + (n * TAPS + tap) * in + k) : _mm512_setzero_ps();
            kernel_transform(taps, made);
            const i64 block = n / 64 * 64, wide = vectors_from(block, out) * LANES;  // pairs from one row to the next
            const __m256i places = _mm256_mullo_epi32(_mm256_set1_epi32(static_cast<int>(wide)),
                                                      _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
            for (i64 p = 0; p < P; ++p)
                _mm256_mask_i32scatter_epi32(
                    u + s.kernel_at(p, block) + 2 * (k / LANES * pairs_of_group * wide + n - block), there, places,
                    narrow(made[p]), 4);
        }
    }
}

// U for the gradient of x: the taps in reverse, `in` channels made from `out`.
void senet_winograd_kernel_back(const float *w, i64 in, i64 out, i64 threads, bf16 *u) {
    const Sizes s{{}, out, in};
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 pair = 0; pair < s.pairs(); ++pair)
        for (i64 n = 0; n < in; n += LANES) {
            const __mmask16 mask = mask_of(in - n);
            __m512 made[2][P];
            for (i64 half = 0; half < 2; ++half) {
                const i64 k = 2 * pair + half;
                __m512 taps[TAPS];
                for (i64 tap = 0; tap < TAPS; ++tap)
                    taps[tap] = k < out ? _mm512_maskz_loadu_ps(mask, w + (k * TAPS + TAPS - 1 - tap) * in + n)
                                        : _mm512_setzero_ps();
                kernel_transform(taps, made[half]);
            }
            const i64 block = n / 64 * 64, wide = vectors_from(block, in) * LANES;
            for (i64 p = 0; p < P; ++p)
                _mm512_store_si512(u + s.kernel_at(p, block) + 2 * (pair * wide + n - block),
                                   interleave(made[0][p], made[1][p]));
        }
}

// How many bfloat16 numbers U holds where `made` channels are made from `summed`.
i64 senet_winograd_kernel_size(i64 summed, i64 made) {
    const Sizes s{{}, summed, made};
    return s.kernel_at(P, 0);
}

// y = x convolved with the kernels of U; with it, if wanted, the mean and biased variance of each
// channel of y, both (out), float32.
void senet_winograd(bf16 *x_, i64 ldx, const bf16 *u, i64 images, i64 height, i64 width, i64 in, i64 out, i64 threads,
                    bf16 *y_, i64 ldy, float *mean, float *variance) {
    const Sizes s{{images, height, width}, in, out};
    const Map x{x_, ldx}, y{y_, ldy};
    const i64 N = s.padded_out(), tiles = s.plane.tiles(), blocks = (tiles + BLOCK - 1) / BLOCK;
    const Buffer<float> sums = buffer<float>(mean ? blocks * 3 * N : 0);
#pragma omp parallel num_threads(threads)
    {
        const Buffer<bf16> v = buffer<bf16>(s.groups() * GROUP);
        const Buffer<float> m = buffer<float>(BLOCK * (4 * LANES * P + LANES));
#pragma omp for schedule(static)
        for (i64 b = 0; b < blocks; ++b) {
            const i64 first = b * BLOCK, count = std::min(BLOCK, tiles - first);
            const Moments moments = mean ? Moments(sums.get() + b * 3 * N, N) : Moments();
            strips(s.plane, first, count, [&](i64 t, i64 image, i64 i, i64 j, i64 n) {
                for (i64 g = 0; g < s.groups(); ++g) {
                    bf16 *to = v.get() + g * GROUP + t * LANES;
                    input_strip(x, s.plane, g * LANES, image, i, j, n, mask_of(in - g * LANES),
                                [&](i64 tile, i64 p, __m512 value) {
                                    store(to + p * PLACE + tile * LANES, 0xFFFF, narrow(value));
                                });
                }
            });
            for (i64 n = 0; n < out; n += 4 * LANES) {
                const auto call = [&](auto make) { make(s, v.get(), u, n, first, count, m.get(), y, moments); };
                switch (vectors_from(n, out)) {
                    case 1: call(make_channels<16, 1>); break;
                    case 2: call(make_channels<12, 2>); break;
                    case 3: call(make_channels<8, 3>); break;
                    default: call(make_channels<6, 4>);
                }
            }
        }
    }
    if (mean != nullptr) join_moments(sums.get(), 4 * tiles, 4 * BLOCK, out, threads, mean, variance);
}

// The gradient of the weight: dw (out, 9, in), float32. The threads share the tiles; or, where the
// sums are larger than a cache, the channels of x.
void senet_winograd_weight(bf16 *x_, i64 ldx, bf16 *dy_, i64 ldy, i64 images, i64 height, i64 width, i64 in, i64 out,
                           i64 threads, float *dw) {
    const Plane plane{images, height, width};
    const Map x{x_, ldx}, dy{dy_, ldy};
    const i64 K = round_up(out, LANES), N = round_up(in, LANES), tiles = plane.tiles();
    const bool many = K * N >= 256 * 256 && N >= threads * 4 * LANES;
    const i64 block = many ? 256 : 128, blocks = (tiles + block - 1) / block;
    const i64 slabs = many ? 1 : std::min(threads, blocks), parts = many ? threads : 1;
    const Buffer<float> sums = buffer<float>(slabs * P * K * N);
#pragma omp parallel for num_threads(slabs * parts) schedule(static, 1)
    for (i64 task = 0; task < slabs * parts; ++task) {
        const i64 slab = task / parts, part = task % parts;
        const i64 begin = round_up(N * part / parts, 4 * LANES);
        const i64 end = std::min(N, round_up(N * (part + 1) / parts, 4 * LANES));
        const Pairs d(K, block, P), v(end - begin, block, P);
        float *sum = sums.get() + slab * P * K * N;
        const i64 from = blocks * slab / slabs, to = blocks * (slab + 1) / slabs;
        for (i64 b = from; b < to; ++b) {
            const i64 first = b * block, count = std::min(block, tiles - first), pairs = (count + 1) / 2;
            strips(plane, first, count, [&](i64 t, i64 image, i64 i, i64 j, i64 n) {
                for (i64 c = 0; c < K; c += LANES)
                    gradient_strip(dy, plane, c, image, i, j, n, mask_of(out - c), d.put(t, c));
                for (i64 c = begin; c < end; c += LANES)
                    input_strip(x, plane, c, image, i, j, n, mask_of(in - c), v.put(t, c - begin));
            });
            d.finish(count);
            v.finish(count);
            for (i64 p = 0; p < P; ++p)
                add_products(d, v, p, pairs, b == from, begin, end, N, sum + p * K * N);
        }
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 k = 0; k < out; ++k)
        for (i64 n = 0; n < in; n += LANES) {
            __m512 u[P], w[TAPS];
            for (i64 p = 0; p < P; ++p) {
                u[p] = _mm512_setzero_ps();
                for (i64 slab = 0; slab < slabs; ++slab)
                    u[p] = _mm512_add_ps(u[p], _mm512_load_ps(sums.get() + ((slab * P + p) * K + k) * N + n));
            }
            kernel_gradient(u, w);
            for (i64 tap = 0; tap < TAPS; ++tap)
                _mm512_mask_storeu_ps(dw + (k * TAPS + tap) * in + n, mask_of(in - n), w[tap]);
        }
}

}  // extern "C"

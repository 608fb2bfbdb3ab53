// Batch normalisation in training, with what stands around it, in one pass over memory each.
//
// Sums are kept in float32 over CHUNK rows and in float64 beyond, always in the same order, so that
// the number of threads changes no bit.

#include "vectors.h"

namespace {

constexpr std::int64_t CHUNK = 64;  // rows of a partial sum

// Rows of a whole map lie end to end: `fold` of them, as one longer row, fill the vector lanes.
struct Shape {
    std::int64_t rows, channels, fold;
    std::int64_t width() const { return channels * fold; }
    std::int64_t tall() const { return rows / fold; }
};

template <typename... Maps>
Shape shape_of(std::int64_t rows, std::int64_t channels, const Maps &...maps) {
    std::int64_t fold = 1;
    while ((channels * fold) % LANES && fold < LANES) fold *= 2;
    const bool whole = (... && (!maps || maps.ld == channels));
    return {rows, channels, whole && rows % fold == 0 ? fold : 1};
}

// A vector of C coefficients, repeated for each of the folded rows and padded to whole vectors.
std::vector<float> tile(const float *values, const Shape &shape) {
    std::vector<float> tiled(shape.width() + LANES, 0.0f);
    for (std::int64_t k = 0; k < shape.width(); ++k) tiled[k] = values[k % shape.channels];
    return tiled;
}

// Two sums a channel over all rows. `term(m, c, mask)` gives the two terms of 16 channels from c on.
template <typename Term>
void sum_rows(const Shape &shape, std::int64_t threads, const Term &term, double *first, double *second) {
    const std::int64_t width = shape.width(), tall = shape.tall();
    const std::int64_t padded = (width + LANES - 1) / LANES * LANES;
    const std::int64_t chunks = (tall + CHUNK - 1) / CHUNK;
    std::vector<float> partial(chunks * 2 * padded);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t k = 0; k < chunks; ++k) {
        const std::int64_t begin = k * CHUNK, end = begin + CHUNK < tall ? begin + CHUNK : tall;
        float *out = partial.data() + k * 2 * padded;
        // Row by row, as memory lies; the sums stay in the first cache.
        for (std::int64_t m = begin; m < end; ++m)
            for (std::int64_t c = 0; c < width; c += LANES) {
                const __mmask16 mask = mask_of(width - c);
                __m512 a = _mm512_loadu_ps(out + c), b = _mm512_loadu_ps(out + padded + c);
                term(m, c, mask, a, b);
                _mm512_storeu_ps(out + c, a);
                _mm512_storeu_ps(out + padded + c, b);
            }
    }
    for (std::int64_t c = 0; c < shape.channels; ++c) first[c] = second[c] = 0.0;
    for (std::int64_t k = 0; k < chunks; ++k) {
        const float *in = partial.data() + k * 2 * padded;
        for (std::int64_t c = 0; c < width; ++c) {
            first[c % shape.channels] += in[c];
            second[c % shape.channels] += in[padded + c];
        }
    }
}

template <typename Body>
void each_row(const Shape &shape, std::int64_t threads, const Body &body) {
    const std::int64_t width = shape.width(), tall = shape.tall();
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t m = 0; m < tall; ++m)
        for (std::int64_t c = 0; c < width; c += LANES) body(m, c, mask_of(width - c));
}

// Rows are `fold` times as long where they are folded.
Map folded(const Map &map, const Shape &shape) { return {map.data, map.ld * shape.fold}; }

}  // namespace

extern "C" {

// Mean and biased variance of each channel; both (C).
void senet_moments(bf16 *x_, std::int64_t ldx, std::int64_t rows, std::int64_t channels, std::int64_t threads,
                   float *mean, float *variance) {
    const Map whole{x_, ldx};
    const Shape shape = shape_of(rows, channels, whole);
    const Map x = folded(whole, shape);
    // Differences from the first row: no digits are lost where the mean is far from zero.
    std::vector<float> origin(channels);
    for (std::int64_t c = 0; c < channels; ++c) {
        const std::uint32_t bits = static_cast<std::uint32_t>(x_[c]) << 16;
        __builtin_memcpy(&origin[c], &bits, 4);
    }
    const std::vector<float> zero = tile(origin.data(), shape);
    std::vector<double> first(channels), second(channels);
    sum_rows(
        shape, threads,
        [&](std::int64_t m, std::int64_t c, __mmask16 mask, __m512 &a, __m512 &b) {
            const __m512 d = _mm512_sub_ps(load(x.row(m) + c, mask), _mm512_loadu_ps(&zero[c]));
            a = _mm512_add_ps(a, d);
            b = _mm512_fmadd_ps(d, d, b);
        },
        first.data(), second.data());
    for (std::int64_t c = 0; c < channels; ++c) {
        const double shift = first[c] / rows, spread = second[c] / rows - shift * shift;
        mean[c] = static_cast<float>(origin[c] + shift);
        variance[c] = static_cast<float>(spread > 0 ? spread : 0);
    }
}

// y = x scale + shift [+ residual], rectified if asked; and total = y + plus, if wanted.
void senet_apply(bf16 *x_, std::int64_t ldx, bf16 *residual_, std::int64_t ldr, bf16 *plus_,
                 std::int64_t ldp, const float *scale, const float *shift, std::int64_t rows,
                 std::int64_t channels, std::int64_t relu, std::int64_t threads, bf16 *y_, bf16 *total_) {
    const Map x0{x_, ldx}, r0{residual_, ldr}, p0{plus_, ldp}, y0{y_, channels}, t0{total_, channels};
    const Shape shape = shape_of(rows, channels, x0, r0, p0);
    const Map x = folded(x0, shape), r = folded(r0, shape), p = folded(p0, shape);
    const Map y = folded(y0, shape), t = folded(t0, shape);
    const std::vector<float> a = tile(scale, shape), b = tile(shift, shape);
    const __m512 floor = relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff());
    each_row(shape, threads, [&](std::int64_t m, std::int64_t c, __mmask16 mask) {
        __m512 v = _mm512_fmadd_ps(load(x.row(m) + c, mask), _mm512_loadu_ps(&a[c]), _mm512_loadu_ps(&b[c]));
        if (r) v = _mm512_add_ps(v, load(r.row(m) + c, mask));
        const __m256i out = narrow(_mm512_max_ps(floor, v));  // max returns v when v is not a number
        store(y.row(m) + c, mask, out);
        if (t) store(t.row(m) + c, mask, narrow(_mm512_add_ps(widen(out), load(p.row(m) + c, mask))));
    });
}

// The gradient g behind the rectifier: (dy + dtotal) where y > 0. Written out if wanted, and summed:
// first = sum of g, second = sum of g (x - mean), both (C), float32.
void senet_reduce(bf16 *dy_, std::int64_t ldy, bf16 *dtotal_, std::int64_t ldt, bf16 *x_, std::int64_t ldx,
                  bf16 *y_, const float *mean, std::int64_t rows, std::int64_t channels, std::int64_t relu,
                  std::int64_t threads, bf16 *g_, float *first, float *second) {
    const Map d0{dy_, ldy}, t0{dtotal_, ldt}, x0{x_, ldx}, y0{y_, channels}, g0{g_, channels};
    const Shape shape = shape_of(rows, channels, d0, t0, x0);
    const Map d = folded(d0, shape), t = folded(t0, shape), x = folded(x0, shape);
    const Map y = folded(y0, shape), g = folded(g0, shape);
    const std::vector<float> centre = tile(mean, shape);
    std::vector<double> one(channels), two(channels);
    sum_rows(
        shape, threads,
        [&](std::int64_t m, std::int64_t c, __mmask16 mask, __m512 &a, __m512 &b) {
            __m512 v = behind_rectifier(d, t, relu ? &y : nullptr, m, c, mask);
            if (g) {
                const __m256i out = narrow(v);
                store(g.row(m) + c, mask, out);
                v = widen(out);
            }
            a = _mm512_add_ps(a, v);
            b = _mm512_fmadd_ps(v, _mm512_sub_ps(load(x.row(m) + c, mask), _mm512_loadu_ps(&centre[c])), b);
        },
        one.data(), two.data());
    for (std::int64_t c = 0; c < channels; ++c) {
        first[c] = static_cast<float>(one[c]);
        second[c] = static_cast<float>(two[c]);
    }
}

// dx = g slope + (x - mean) tilt + level, with g as senet_reduce defines it.
void senet_gradient(bf16 *dy_, std::int64_t ldy, bf16 *dtotal_, std::int64_t ldt, bf16 *x_,
                    std::int64_t ldx, bf16 *y_, const float *mean, const float *slope,
                    const float *tilt, const float *level, std::int64_t rows, std::int64_t channels,
                    std::int64_t relu, std::int64_t threads, bf16 *dx_) {
    const Map d0{dy_, ldy}, t0{dtotal_, ldt}, x0{x_, ldx}, y0{y_, channels}, o0{dx_, channels};
    const Shape shape = shape_of(rows, channels, d0, t0, x0);
    const Map d = folded(d0, shape), t = folded(t0, shape), x = folded(x0, shape);
    const Map y = folded(y0, shape), o = folded(o0, shape);
    const std::vector<float> centre = tile(mean, shape), p = tile(slope, shape);
    const std::vector<float> q = tile(tilt, shape), s = tile(level, shape);
    each_row(shape, threads, [&](std::int64_t m, std::int64_t c, __mmask16 mask) {
        __m512 v = behind_rectifier(d, t, relu ? &y : nullptr, m, c, mask);
        const __m512 away = _mm512_sub_ps(load(x.row(m) + c, mask), _mm512_loadu_ps(&centre[c]));
        v = _mm512_fmadd_ps(v, _mm512_loadu_ps(&p[c]), _mm512_loadu_ps(&s[c]));
        store(o.row(m) + c, mask, narrow(_mm512_fmadd_ps(away, _mm512_loadu_ps(&q[c]), v)));
    });
}

}  // extern "C"

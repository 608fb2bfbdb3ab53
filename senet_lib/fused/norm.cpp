// Batch normalisation in training, with what stands around it, in one pass over memory each.
//
// Sums are kept in float32 over CHUNK rows and in float64 beyond, always in the same order, so that
// the number of threads changes no bit.

#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

constexpr std::int64_t CHUNK = 64;  // rows of a partial sum
constexpr int COLUMNS = 8;          // vectors whose sums are kept in registers

// Rows of a whole map lie end to end: `fold` of them, as one longer row, fill the vector lanes.
struct Shape {
    std::int64_t rows, channels, fold;
    std::int64_t width() const { return channels * fold; }
    std::int64_t tall() const { return rows / fold; }
};

template <typename... Maps>
Shape shape_of(std::int64_t rows, std::int64_t channels, const Maps &...maps) {
    std::int64_t fold = 1;
    while ((channels * fold) % LANES && 2 * channels * fold <= COLUMNS * LANES) fold *= 2;
    const bool whole = (... && (!maps || maps.ld == channels));
    return {rows, channels, whole && rows % fold == 0 ? fold : 1};
}

// A vector of C coefficients, repeated for each of the folded rows and padded to whole vectors.
std::vector<float> tile(const float *values, const Shape &shape) {
    std::vector<float> tiled(shape.width() + LANES, 0.0f);
    for (std::int64_t k = 0; k < shape.width(); ++k) tiled[k] = values[k % shape.channels];
    return tiled;
}

// body(m, c, lanes) for each vector of the rows `begin` to `end`, in the order of memory.
template <typename Body>
inline void each_vector(std::int64_t begin, std::int64_t end, std::int64_t width, const Body &body) {
    const std::int64_t whole = width / LANES * LANES;
    for (std::int64_t m = begin; m < end; ++m) {
        for (std::int64_t c = 0; c < whole; c += LANES) body(m, c, All{});
        if (whole < width) body(m, whole, mask_of(width - whole));
    }
}

template <typename Body>
void each_row(const Shape &shape, std::int64_t threads, const Body &body) {
    const std::int64_t width = shape.width(), tall = shape.tall();
#pragma omp parallel num_threads(threads)
    {
        const Body own = body;  // a copy that no store can change, so that it stays in registers
#pragma omp for schedule(static)
        for (std::int64_t m = 0; m < tall; ++m) each_vector(m, m + 1, width, own);
    }
}

// The two sums of up to COUNT vectors of channels from c on, over some rows; kept in registers.
template <int COUNT, typename Term>
inline void sum_columns(std::int64_t begin, std::int64_t end, std::int64_t c, std::int64_t width, const Term &term,
                        float *first, float *second) {
    if constexpr (COUNT > 1)
        if (c + (COUNT - 1) * LANES >= width) return sum_columns<COUNT - 1>(begin, end, c, width, term, first, second);
    const __mmask16 rest = mask_of(width - c - (COUNT - 1) * LANES);
    __m512 a[COUNT], b[COUNT];
    for (int i = 0; i < COUNT; ++i) a[i] = b[i] = _mm512_setzero_ps();
    for (std::int64_t m = begin; m < end; ++m) {
        for (int i = 0; i < COUNT - 1; ++i) term(m, c + i * LANES, All{}, a[i], b[i]);
        term(m, c + (COUNT - 1) * LANES, rest, a[COUNT - 1], b[COUNT - 1]);
    }
    for (int i = 0; i < COUNT; ++i) {
        _mm512_storeu_ps(first + c + i * LANES, a[i]);
        _mm512_storeu_ps(second + c + i * LANES, b[i]);
    }
}

// Two sums a channel over all rows: term(m, c, lanes, first, second) adds those of 16 channels.
template <typename Term>
void sum_rows(const Shape &shape, std::int64_t threads, const Term &term, double *first, double *second) {
    const std::int64_t width = shape.width(), tall = shape.tall();
    const std::int64_t padded = round_up(width, LANES);
    const std::int64_t chunks = (tall + CHUNK - 1) / CHUNK;
    const Buffer<float> partial = buffer<float>(chunks * 2 * padded);
#pragma omp parallel num_threads(threads)
    {
        const Term own = term;
#pragma omp for schedule(static)
        for (std::int64_t k = 0; k < chunks; ++k) {
            const std::int64_t begin = k * CHUNK, end = begin + CHUNK < tall ? begin + CHUNK : tall;
            float *out = partial.get() + k * 2 * padded;
            for (std::int64_t c = 0; c < width; c += COLUMNS * LANES)
                sum_columns<COLUMNS>(begin, end, c, width, own, out, out + padded);
        }
    }
    for (std::int64_t c = 0; c < shape.channels; ++c) first[c] = second[c] = 0.0;
    for (std::int64_t k = 0; k < chunks; ++k)
        for (std::int64_t f = 0; f < shape.fold; ++f) {
            const float *in = partial.get() + k * 2 * padded + f * shape.channels;
            for (std::int64_t c = 0; c < shape.channels; ++c) {
                first[c] += in[c];
                second[c] += in[padded + c];
            }
        }
}

// Rows are `fold` times as long where they are folded.
Map folded(const Map &map, const Shape &shape) { return {map.data, map.ld * shape.fold}; }

// What comes into a normalisation from behind, and how the gradient passes the rectifier.
struct Incoming {
    Map d, t, x, y;
    const float *scale, *shift;
    template <typename Lanes>
    __m512 gradient(__m512 value, std::int64_t m, std::int64_t c, Lanes lanes) const {
        __m512 v = load(d.row(m) + c, lanes);
        if (t) v = _mm512_add_ps(v, load(t.row(m) + c, lanes));
        if (scale == nullptr) return behind_rectifier(v, y, m, c, lanes);
        const __m512 made = _mm512_fmadd_ps(value, _mm512_loadu_ps(scale + c), _mm512_loadu_ps(shift + c));
        return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(made, _mm512_setzero_ps(), _CMP_GT_OQ), v);
    }
};

// Mean and biased variance of each channel; both (C).
void find_moments(const Map &whole, std::int64_t rows, std::int64_t channels, std::int64_t threads, float *mean,
                  float *variance) {
    const Shape shape = shape_of(rows, channels, whole);
    const Map x = folded(whole, shape);
    // Differences from the first row: no digits are lost where the mean is far from zero.
    std::vector<float> origin(channels);
    for (std::int64_t c = 0; c < channels; ++c) {
        const std::uint32_t bits = static_cast<std::uint32_t>(whole.data[c]) << 16;
        __builtin_memcpy(&origin[c], &bits, 4);
    }
    const std::vector<float> tiled = tile(origin.data(), shape);
    const float *zero = tiled.data();
    std::vector<double> first(channels), second(channels);
    sum_rows(
        shape, threads,
        [=](std::int64_t m, std::int64_t c, auto lanes, __m512 &a, __m512 &b) {
            const __m512 d = _mm512_sub_ps(load(x.row(m) + c, lanes), _mm512_loadu_ps(zero + c));
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

// What a normalisation leaves for its gradient, (4, C): mean and 1 / deviation of the batch, and the
// scale and shift made of them.
struct State {
    float *mean, *invstd, *scale, *shift;
    State(float *data, std::int64_t channels)
        : mean(data), invstd(data + channels), scale(data + 2 * channels), shift(data + 3 * channels) {}
};

}  // namespace

extern "C" {

// y = norm(x) [+ residual], rectified if asked; and total = y + plus, if wanted. The moments of x are
// taken if they are not given; the running ones are moved towards them.
void senet_norm(bf16 *x_, std::int64_t ldx, bf16 *residual_, std::int64_t ldr, bf16 *plus_, std::int64_t ldp,
                const float *known_mean, const float *known_variance, const float *weight, const float *bias,
                float *running_mean, float *running_variance, double eps, double momentum, std::int64_t rows,
                std::int64_t channels, std::int64_t relu, std::int64_t threads, float *state_, bf16 *y_,
                bf16 *total_) {
    const Map x0{x_, ldx}, r0{residual_, ldr}, p0{plus_, ldp}, y0{y_, channels}, t0{total_, channels};
    const State state(state_, channels);
    std::vector<float> variance(channels);
    if (known_mean != nullptr) {
        std::copy(known_mean, known_mean + channels, state.mean);
        std::copy(known_variance, known_variance + channels, variance.begin());
    } else {
        find_moments(x0, rows, channels, threads, state.mean, variance.data());
    }
    const double unbiased = rows > 1 ? static_cast<double>(rows) / (rows - 1) : 1.0;
    for (std::int64_t c = 0; c < channels; ++c) {
        state.invstd[c] = static_cast<float>(1.0 / std::sqrt(variance[c] + eps));
        state.scale[c] = weight[c] * state.invstd[c];
        state.shift[c] = bias[c] - state.mean[c] * state.scale[c];
        running_mean[c] += static_cast<float>(momentum * (state.mean[c] - running_mean[c]));
        running_variance[c] += static_cast<float>(momentum * (variance[c] * unbiased - running_variance[c]));
    }
    const Shape shape = shape_of(rows, channels, x0, r0, p0);
    const Map x = folded(x0, shape), r = folded(r0, shape), p = folded(p0, shape);
    const Map y = folded(y0, shape), t = folded(t0, shape);
    const std::vector<float> scales = tile(state.scale, shape), shifts = tile(state.shift, shape);
    const float *a = scales.data(), *b = shifts.data();
    const __m512 floor = relu ? _mm512_setzero_ps() : _mm512_set1_ps(-__builtin_inff());
    each_row(shape, threads, [=](std::int64_t m, std::int64_t c, auto lanes) {
        __m512 v = _mm512_fmadd_ps(load(x.row(m) + c, lanes), _mm512_loadu_ps(a + c), _mm512_loadu_ps(b + c));
        if (r) v = _mm512_add_ps(v, load(r.row(m) + c, lanes));
        const __m256i out = narrow(_mm512_max_ps(floor, v));  // max returns v when v is not a number
        store(y.row(m) + c, lanes, out);
        if (t) store(t.row(m) + c, lanes, narrow(_mm512_add_ps(widen(out), load(p.row(m) + c, lanes))));
    });
}

// The gradients of senet_norm from those of y and total. A rectifier lets pass where its result is above
// zero: that is y, if it is given, else x scale + shift. With a residual, g is its gradient, written out.
void senet_norm_back(bf16 *dy_, std::int64_t ldy, bf16 *dtotal_, std::int64_t ldt, bf16 *x_, std::int64_t ldx,
                     bf16 *y_, float *state_, std::int64_t rows, std::int64_t channels,
                     std::int64_t relu, std::int64_t threads, bf16 *g_, bf16 *dx_, float *dweight, float *dbias) {
    const State state(state_, channels);
    const Map d{dy_, ldy}, t{dtotal_, ldt}, x{x_, ldx}, y{y_, channels};
    const Shape shape = shape_of(rows, channels, d, t, x);
    const std::vector<float> scales = tile(state.scale, shape), shifts = tile(state.shift, shape);
    const std::vector<float> means = tile(state.mean, shape);
    const float *centre = means.data();
    Incoming in{folded(d, shape), folded(t, shape), folded(x, shape), folded(relu ? y : Map{}, shape),
                relu && !y ? scales.data() : nullptr, shifts.data()};
    const Map g = folded(Map{g_, channels}, shape), o = folded(Map{dx_, channels}, shape);
    std::vector<double> level_sum(channels), tilt_sum(channels);  // of g, and of g (x - mean)
    sum_rows(
        shape, threads,
        [=](std::int64_t m, std::int64_t c, auto lanes, __m512 &a, __m512 &b) {
            const __m512 value = load(in.x.row(m) + c, lanes);
            __m512 v = in.gradient(value, m, c, lanes);
            if (g) {
                const __m256i out = narrow(v);
                store(g.row(m) + c, lanes, out);
                v = widen(out);
            }
            a = _mm512_add_ps(a, v);
            b = _mm512_fmadd_ps(v, _mm512_sub_ps(value, _mm512_loadu_ps(centre + c)), b);
        },
        level_sum.data(), tilt_sum.data());
    if (g) in = {g, Map{}, in.x, Map{}, nullptr, nullptr};  // rectified already
    // dx = g slope + (x - mean) tilt + level
    std::vector<float> slope(channels), tilt(channels), level(channels);
    for (std::int64_t c = 0; c < channels; ++c) {
        const double invstd = state.invstd[c];
        dbias[c] = static_cast<float>(level_sum[c]);
        dweight[c] = static_cast<float>(tilt_sum[c] * invstd);
        slope[c] = state.scale[c];
        tilt[c] = static_cast<float>(-state.scale[c] * invstd * invstd * tilt_sum[c] / rows);
        level[c] = static_cast<float>(-state.scale[c] * level_sum[c] / rows);
    }
    const std::vector<float> slopes = tile(slope.data(), shape), tilts = tile(tilt.data(), shape);
    const std::vector<float> levels = tile(level.data(), shape);
    const float *p = slopes.data(), *q = tilts.data(), *s = levels.data();
    each_row(shape, threads, [=](std::int64_t m, std::int64_t c, auto lanes) {
        const __m512 value = load(in.x.row(m) + c, lanes);
        const __m512 away = _mm512_sub_ps(value, _mm512_loadu_ps(centre + c));
        const __m512 v =
            _mm512_fmadd_ps(in.gradient(value, m, c, lanes), _mm512_loadu_ps(p + c), _mm512_loadu_ps(s + c));
        store(o.row(m) + c, lanes, narrow(_mm512_fmadd_ps(away, _mm512_loadu_ps(q + c), v)));
    });
}

}  // extern "C"

// Batch normalisation with the additions and the rectifier around it, forward and backward.

#include "maps.h"

namespace {

constexpr i64 CHUNK = 256;  // rows whose sums are float; those of all chunks are added in double
constexpr i64 COLUMNS = 4;  // vectors of channels summed at a time

// The two sums of up to COUNT vectors of channels from vector `v` on, over some rows; kept in registers.
template <i64 COUNT, typename Term>
inline void sum_columns(i64 begin, i64 end, i64 v, i64 channels, const Term &term, float *first, float *second) {
    if constexpr (COUNT > 1)
        if (v + COUNT > vectors(channels))
            return sum_columns<COUNT - 1>(begin, end, v, channels, term, first, second);
    Vec a[COUNT], b[COUNT];
    i64 at[COUNT];
    for (i64 i = 0; i < COUNT; ++i) {
        a[i] = b[i] = Vec(0.f);
        at[i] = offset(v + i, channels);
    }
    if (channels < LANES)
        for (i64 m = begin; m < end; ++m) term(m, 0, Part{channels}, a[0], b[0]);
    else
        for (i64 m = begin; m < end; ++m)
            for (i64 i = 0; i < COUNT; ++i) term(m, at[i], Whole{}, a[i], b[i]);
    for (i64 i = 0; i < COUNT; ++i) {
        a[i].store(first + at[i]);
        b[i].store(second + at[i]);
    }
}

// Two sums a channel over all rows: term(m, c, lanes, first, second) adds those of a vector. The order is
// the same for any number of threads.
template <typename Term>
void sum_rows(i64 rows, i64 channels, i64 threads, const Term &term, double *first, double *second) {
    const i64 padded = vectors(channels) * LANES, chunks = (rows + CHUNK - 1) / CHUNK;
    const Buffer partial = buffer(chunks * 2 * padded);
#pragma omp parallel num_threads(threads)
    {
        const Term own = term;
#pragma omp for schedule(static)
        for (i64 k = 0; k < chunks; ++k) {
            float *out = partial.get() + k * 2 * padded;
            for (i64 v = 0; v < vectors(channels); v += COLUMNS)
                sum_columns<COLUMNS>(k * CHUNK, std::min(rows, (k + 1) * CHUNK), v, channels, own, out, out + padded);
        }
    }
    std::fill(first, first + channels, 0.0);
    std::fill(second, second + channels, 0.0);
    for (i64 k = 0; k < chunks; ++k)
        for (i64 c = 0; c < channels; ++c) {
            first[c] += partial[k * 2 * padded + c];
            second[c] += partial[(k * 2 + 1) * padded + c];
        }
}

// Mean and biased variance of each channel; both (C).
void find_moments(const Map &x, i64 rows, i64 channels, i64 threads, float *mean, float *variance) {
    // Differences from the first row: no digits are lost where the mean is far from zero.
    const std::vector<float> origin(x.data, x.data + channels);
    const float *zero = origin.data();
    std::vector<double> first(channels), second(channels);
    sum_rows(
        rows, channels, threads,
        [=](i64 m, i64 c, auto lanes, Vec &a, Vec &b) {
            const Vec away = load(x.row(m) + c, lanes) - load(zero + c, lanes);
            a = a + away;
            b = at::vec::fmadd(away, away, b);
        },
        first.data(), second.data());
    for (i64 c = 0; c < channels; ++c) {
        const double shift = first[c] / rows, spread = second[c] / rows - shift * shift;
        mean[c] = static_cast<float>(origin[c] + shift);
        variance[c] = static_cast<float>(spread > 0 ? spread : 0);
    }
}

// What a normalisation leaves for its gradient, (4, C): mean and 1 / deviation of the batch, and the
// scale and shift made of them.
struct State {
    float *mean, *invstd, *scale, *shift;
    State(float *data, i64 channels)
        : mean(data), invstd(data + channels), scale(data + 2 * channels), shift(data + 3 * channels) {}
};

// What comes into a normalisation from behind, and how the gradient passes the rectifier.
struct Incoming {
    Map d, t, y;
    const float *scale, *shift;
    template <typename Lanes>
    Vec gradient(const Vec &x, i64 m, i64 c, Lanes lanes) const {
        Vec v = load(d.row(m) + c, lanes);
        if (t) v = v + load(t.row(m) + c, lanes);
        if (y) return v & (load(y.row(m) + c, lanes) > Vec(0.f));
        if (scale == nullptr) return v;
        return v & (at::vec::fmadd(x, load(scale + c, lanes), load(shift + c, lanes)) > Vec(0.f));
    }
};

}  // namespace

extern "C" {

// y = norm(x) [+ residual], rectified if asked; and total = y + plus, if wanted. The moments of x are
// taken if they are not given; the running ones are moved towards them.
void senet_norm(Element *x_, i64 ldx, Element *residual_, i64 ldr, Element *plus_, i64 ldp, const float *known_mean,
                const float *known_variance, const float *weight, const float *bias, float *running_mean,
                float *running_variance, double eps, double momentum, i64 rows, i64 channels, i64 relu, i64 threads,
                float *state_, Element *y_, i64 ldy, Element *total_) {
    const Map x{x_, ldx}, r{residual_, ldr}, p{plus_, ldp}, y{y_, ldy}, t{total_, channels};
    const State state(state_, channels);
    std::vector<float> variance(channels);
    if (known_mean != nullptr) {
        std::copy(known_mean, known_mean + channels, state.mean);
        std::copy(known_variance, known_variance + channels, variance.begin());
    } else {
        find_moments(x, rows, channels, threads, state.mean, variance.data());
    }
    const double unbiased = rows > 1 ? static_cast<double>(rows) / (rows - 1) : 1.0;
    for (i64 c = 0; c < channels; ++c) {
        state.invstd[c] = static_cast<float>(1.0 / std::sqrt(variance[c] + eps));
        state.scale[c] = weight[c] * state.invstd[c];
        state.shift[c] = bias[c] - state.mean[c] * state.scale[c];
        running_mean[c] += static_cast<float>(momentum * (state.mean[c] - running_mean[c]));
        running_variance[c] += static_cast<float>(momentum * (variance[c] * unbiased - running_variance[c]));
    }
    const float *a = state.scale, *b = state.shift;
    each_row(rows, channels, threads, [=](i64 m, i64 c, auto lanes) {
        Vec v = at::vec::fmadd(load(x.row(m) + c, lanes), load(a + c, lanes), load(b + c, lanes));
        if (r) v = v + load(r.row(m) + c, lanes);
        if (relu) v = at::vec::clamp_min(v, Vec(0.f));
        store(y.row(m) + c, lanes, v);
        if (t) store(t.row(m) + c, lanes, rounded(v) + load(p.row(m) + c, lanes));
    });
}

// The gradients of senet_norm from those of y and total. A rectifier lets pass where its result is above
// zero: that is y, if it is given, else x scale + shift. With a residual, g is its gradient, written out.
void senet_norm_back(Element *dy_, i64 ldy, Element *dtotal_, i64 ldt, Element *x_, i64 ldx, Element *y_,
                     float *state_, i64 rows, i64 channels, i64 relu, i64 threads, Element *g_,
                     Element *dx_, float *dweight, float *dbias) {
    const State state(state_, channels);
    const Map d{dy_, ldy}, t{dtotal_, ldt}, x{x_, ldx}, y{y_, channels}, g{g_, channels}, o{dx_, channels};
    const float *centre = state.mean;
    Incoming in{d, t, relu ? y : Map{}, relu && !y ? state.scale : nullptr, state.shift};
    std::vector<double> level_sum(channels), tilt_sum(channels);  // of g, and of g (x - mean)
    sum_rows(
        rows, channels, threads,
        [=](i64 m, i64 c, auto lanes, Vec &a, Vec &b) {
            const Vec value = load(x.row(m) + c, lanes);
            Vec v = in.gradient(value, m, c, lanes);
            if (g) {
                v = rounded(v);
                store(g.row(m) + c, lanes, v);
            }
            a = a + v;
            b = at::vec::fmadd(v, value - load(centre + c, lanes), b);
        },
        level_sum.data(), tilt_sum.data());
    if (g) in = {g, Map{}, Map{}, nullptr, nullptr};  // rectified already
    // dx = g slope + (x - mean) tilt + level
    std::vector<float> tilt(channels), level(channels);
    for (i64 c = 0; c < channels; ++c) {
        const double invstd = state.invstd[c];
        dbias[c] = static_cast<float>(level_sum[c]);
        dweight[c] = static_cast<float>(tilt_sum[c] * invstd);
        tilt[c] = static_cast<float>(-state.scale[c] * invstd * invstd * tilt_sum[c] / rows);
        level[c] = static_cast<float>(-state.scale[c] * level_sum[c] / rows);
    }
    const float *p = state.scale, *q = tilt.data(), *s = level.data();
    each_row(rows, channels, threads, [=](i64 m, i64 c, auto lanes) {
        const Vec value = load(x.row(m) + c, lanes);
        const Vec v = at::vec::fmadd(in.gradient(value, m, c, lanes), load(p + c, lanes), load(s + c, lanes));
        store(o.row(m) + c, lanes, at::vec::fmadd(value - load(centre + c, lanes), load(q + c, lanes), v));
    });
}

}  // extern "C"

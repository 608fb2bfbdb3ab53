// Batch normalisation with the additions and the rectifier around it, forward and backward.

#include "maps.h"

#include <tuple>
#include <utility>

namespace {

constexpr i64 CHUNK = 256;  // rows whose sums are float; those of all chunks are added in double
constexpr i64 COLUMNS = 2;  // vectors of channels summed at a time

// The two sums of up to COUNT vectors of channels from vector `v` on, over some rows; kept in registers.
template <i64 COUNT, typename Lanes, typename Term>
inline void sum_columns(i64 begin, i64 end, i64 v, i64 channels, Lanes lanes, const Term &term, float *first,
                        float *second) {
    if constexpr (COUNT > 1)
        if (v + COUNT > vectors(channels))
            return sum_columns<COUNT - 1>(begin, end, v, channels, lanes, term, first, second);
    [&]<std::size_t... I>(std::index_sequence<I...>) {
        const i64 at[] = {offset(v + I, channels)...};
        const auto terms = std::make_tuple(term(at[I], lanes)...);
        Vec a[] = {Vec(0.f * I)...}, b[] = {Vec(0.f * I)...};
        for (i64 m = begin; m < end; ++m) (std::get<I>(terms)(m, a[I], b[I]), ...);
        (a[I].store(first + at[I]), ...);
        (b[I].store(second + at[I]), ...);
    }(std::make_index_sequence<COUNT>{});
}

// Two sums a channel over all rows: term(c, lanes)(m, first, second) adds those of a vector. The order is
// the same for any number of threads.
template <typename Term>
void sum_rows(i64 rows, i64 channels, i64 threads, const Term &term, double *first, double *second) {
    const i64 padded = vectors(channels) * LANES, chunks = (rows + CHUNK - 1) / CHUNK;
    const Buffer partial = buffer(chunks * 2 * padded);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 k = 0; k < chunks; ++k) {
        float *out = partial.get() + k * 2 * padded;
        const i64 begin = k * CHUNK, end = std::min(rows, begin + CHUNK);
        if (channels < LANES) sum_columns<1>(begin, end, 0, channels, Part{channels}, term, out, out + padded);
        else
            for (i64 v = 0; v < vectors(channels); v += COLUMNS)
                sum_columns<COLUMNS>(begin, end, v, channels, Whole{}, term, out, out + padded);
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
        [=](i64 c, auto lanes) {
            return [=, z = load(zero + c, lanes)](i64 m, Vec &a, Vec &b) {
                const Vec away = load(x.row(m) + c, lanes) - z;
                a = a + away;
                b = at::vec::fmadd(away, away, b);
            };
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
    // gradient(x, m) of a vector of channels.
    template <typename Lanes>
    auto of(i64 c, Lanes lanes) const {
        const Vec a = scale ? load(scale + c, lanes) : Vec(0.f), b = scale ? load(shift + c, lanes) : Vec(0.f);
        return [=, in = *this](const Vec &x, i64 m) {
            Vec v = load(in.d.row(m) + c, lanes);
            if (in.t) v = v + load(in.t.row(m) + c, lanes);
            if (in.y) return v & (load(in.y.row(m) + c, lanes) > Vec(0.f));
            return in.scale ? v & (at::vec::fmadd(x, a, b) > Vec(0.f)) : v;
        };
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
    each_row(rows, channels, threads, [=](i64 c, auto lanes) {
        return [=, scale = load(a + c, lanes), shift = load(b + c, lanes)](i64 m) {
            Vec v = at::vec::fmadd(load(x.row(m) + c, lanes), scale, shift);
            if (r) v = v + load(r.row(m) + c, lanes);
            if (relu) v = at::vec::clamp_min(v, Vec(0.f));
            store(y.row(m) + c, lanes, v);
            if (t) store(t.row(m) + c, lanes, rounded(v) + load(p.row(m) + c, lanes));
        };
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
        [=](i64 c, auto lanes) {
            return [=, gradient = in.of(c, lanes), mean = load(centre + c, lanes)](i64 m, Vec &a, Vec &b) {
                const Vec value = load(x.row(m) + c, lanes);
                Vec v = gradient(value, m);
                if (g) {
                    v = rounded(v);
                    store(g.row(m) + c, lanes, v);
                }
                a = a + v;
                b = at::vec::fmadd(v, value - mean, b);
            };
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
    each_row(rows, channels, threads, [&](i64 c, auto lanes) {
        return [=, gradient = in.of(c, lanes), mean = load(centre + c, lanes), p = load(state.scale + c, lanes),
                q = load(tilt.data() + c, lanes), s = load(level.data() + c, lanes)](i64 m) {
            const Vec value = load(x.row(m) + c, lanes);
            const Vec v = at::vec::fmadd(gradient(value, m), p, s);
            store(o.row(m) + c, lanes, at::vec::fmadd(value - mean, q, v));
        };
    });
}

}  // extern "C"

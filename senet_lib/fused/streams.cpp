// A map taken apart into streams of its channels and put together again, and its 2x2 mean.

#include "vectors.h"

namespace {

inline __m512 sum(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }

}  // namespace

extern "C" {

// Stream i of x, channels i w to (i + 1) w, to streams[i] (rows, w), i = 0..s-1. With `add`,
// streams[1] is the sum of streams 0 and 1.
void senet_split(bf16 *x_, std::int64_t ldx, std::int64_t rows, std::int64_t w, std::int64_t s, std::int64_t add,
                 std::int64_t threads, bf16 *const *streams) {
    const Map x{x_, ldx};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x)
    for (std::int64_t m = 0; m < rows; ++m)
        for (std::int64_t i = 0; i < s; ++i)
            for (std::int64_t c = 0; c < w; c += LANES) {
                const __mmask16 mask = mask_of(w - c);
                const bf16 *from = x.row(m) + i * w + c;
                bf16 *to = streams[i] + m * w + c;
                if (add && i == 1)
                    store(to, mask, narrow(sum(load(from, mask), load(from - w, mask))));
                else
                    store(to, mask, raw(from, mask));
            }
}

// The streams side by side in out (rows, s w). With `add`, stream 0 of it is the sum of streams 0 and 1.
void senet_join(bf16 *const *streams, std::int64_t rows, std::int64_t w, std::int64_t s, std::int64_t add,
                std::int64_t threads, bf16 *out) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t m = 0; m < rows; ++m)
        for (std::int64_t i = 0; i < s; ++i)
            for (std::int64_t c = 0; c < w; c += LANES) {
                const __mmask16 mask = mask_of(w - c);
                const bf16 *from = streams[i] + m * w + c;
                bf16 *to = out + (m * s + i) * w + c;
                if (add && i == 0)
                    store(to, mask, narrow(sum(load(from, mask), load(streams[1] + m * w + c, mask))));
                else
                    store(to, mask, raw(from, mask));
            }
}

// Mean of 2x2 pixels: y (images, height / 2, width / 2, channels).
void senet_pool(bf16 *x_, std::int64_t ldx, std::int64_t images, std::int64_t height, std::int64_t width,
                std::int64_t channels, std::int64_t threads, bf16 *y_) {
    const Map x{x_, ldx}, y{y_, channels};
    const __m512 quarter = _mm512_set1_ps(0.25f);
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x, y)
    for (std::int64_t r = 0; r < images * (height / 2); ++r)
        for (std::int64_t j = 0; j < width / 2; ++j)
            for (std::int64_t c = 0; c < channels; c += LANES) {
                const __mmask16 mask = mask_of(channels - c);
                const std::int64_t top = 2 * r * width + 2 * j, bottom = top + width;
                const __m512 above = sum(load(x.row(top) + c, mask), load(x.row(top + 1) + c, mask));
                const __m512 below = sum(load(x.row(bottom) + c, mask), load(x.row(bottom + 1) + c, mask));
                store(y.row(r * (width / 2) + j) + c, mask, narrow(_mm512_mul_ps(quarter, sum(above, below))));
            }
}

// Its gradient: a quarter of dy for each of the four pixels.
void senet_pool_back(bf16 *dy_, std::int64_t ldy, std::int64_t images, std::int64_t height, std::int64_t width,
                     std::int64_t channels, std::int64_t threads, bf16 *dx_) {
    const Map dy{dy_, ldy}, dx{dx_, channels};
    const __m512 quarter = _mm512_set1_ps(0.25f);
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(dx, dy)
    for (std::int64_t r = 0; r < images * height; ++r)
        for (std::int64_t j = 0; j < width / 2; ++j)
            for (std::int64_t c = 0; c < channels; c += LANES) {
                const __mmask16 mask = mask_of(channels - c);
                const __m512 v = load(dy.row(r / 2 * (width / 2) + j) + c, mask);
                const __m256i share = narrow(_mm512_mul_ps(quarter, v));
                store(dx.row(r * width + 2 * j) + c, mask, share);
                store(dx.row(r * width + 2 * j + 1) + c, mask, share);
            }
}

}  // extern "C"

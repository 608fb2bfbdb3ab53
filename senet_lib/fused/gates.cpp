// Squeeze and rescaling of a map by the gates of its channels, with their gradients.

#include "vectors.h"

extern "C" {

// Mean over the rows of each image: (N, C), float32.
void senet_squeeze(bf16 *x_, std::int64_t ldx, std::int64_t images, std::int64_t pixels,
                   std::int64_t channels, std::int64_t threads, float *mean) {
    const Map x{x_, ldx};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x, mean)
    for (std::int64_t n = 0; n < images; ++n) {
        float *out = mean + n * channels;
        for (std::int64_t c = 0; c < channels; ++c) out[c] = 0.0f;
        for (std::int64_t m = n * pixels; m < (n + 1) * pixels; ++m)
            for (std::int64_t c = 0; c < channels; c += LANES) {
                const __mmask16 mask = mask_of(channels - c);
                const __m512 sum = _mm512_maskz_loadu_ps(mask, out + c);
                _mm512_mask_storeu_ps(out + c, mask, _mm512_add_ps(sum, load(x.row(m) + c, mask)));
            }
        for (std::int64_t c = 0; c < channels; ++c) out[c] /= pixels;
    }
}

// y = x gate, or, with a residual, y = max(x gate + residual, 0); gate is (N, C), float32.
void senet_scale(bf16 *x_, std::int64_t ldx, bf16 *residual_, std::int64_t ldr, const float *gate,
                 std::int64_t images, std::int64_t pixels, std::int64_t channels, std::int64_t threads,
                 bf16 *y_) {
    const Map x{x_, ldx}, r{residual_, ldr}, y{y_, channels};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x, r, y, gate)
    for (std::int64_t n = 0; n < images; ++n)
        for (std::int64_t m = n * pixels; m < (n + 1) * pixels; ++m)
            for (std::int64_t c = 0; c < channels; c += LANES) {
                const __mmask16 mask = mask_of(channels - c);
                const __m512 g = _mm512_maskz_loadu_ps(mask, gate + n * channels + c);
                __m512 v = _mm512_mul_ps(load(x.row(m) + c, mask), g);
                if (r) v = _mm512_max_ps(_mm512_setzero_ps(), _mm512_add_ps(v, load(r.row(m) + c, mask)));
                store(y.row(m) + c, mask, narrow(v));
            }
}

// Backward of senet_scale: dx = g gate, dgate = sum of g x over an image, and g = dy where y > 0,
// written out, if there was a residual (y is given then).
void senet_scale_back(bf16 *dy_, std::int64_t ldy, bf16 *x_, std::int64_t ldx, bf16 *y_,
                      const float *gate, std::int64_t images, std::int64_t pixels,
                      std::int64_t channels, std::int64_t threads, bf16 *dx_, bf16 *g_, float *dgate) {
    const Map d{dy_, ldy}, x{x_, ldx}, y{y_, channels}, o{dx_, channels}, g{g_, channels};
#pragma omp parallel num_threads(threads) firstprivate(d, x, y, o, g, gate)
    {
        std::vector<float> sums(round_up(channels, LANES));
#pragma omp for schedule(static)
        for (std::int64_t n = 0; n < images; ++n) {
            for (float &value : sums) value = 0.0f;
            for (std::int64_t m = n * pixels; m < (n + 1) * pixels; ++m)
                for (std::int64_t c = 0; c < channels; c += LANES) {
                    const __mmask16 mask = mask_of(channels - c);
                    __m512 v = behind_rectifier(load(d.row(m) + c, mask), y, m, c, mask);
                    if (y) store(g.row(m) + c, mask, narrow(v));
                    const __m512 sum = _mm512_loadu_ps(&sums[c]);
                    _mm512_storeu_ps(&sums[c], _mm512_fmadd_ps(v, load(x.row(m) + c, mask), sum));
                    v = _mm512_mul_ps(v, _mm512_maskz_loadu_ps(mask, gate + n * channels + c));
                    store(o.row(m) + c, mask, narrow(v));
                }
            for (std::int64_t c = 0; c < channels; ++c) dgate[n * channels + c] = sums[c];
        }
    }
}

// out = x + extra, the same extra (N, C), float32, for all pixels of an image.
void senet_spread(bf16 *x_, std::int64_t ldx, const float *extra, std::int64_t images,
                  std::int64_t pixels, std::int64_t channels, std::int64_t threads, bf16 *out_) {
    const Map x{x_, ldx}, out{out_, channels};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x, out, extra)
    for (std::int64_t n = 0; n < images; ++n)
        for (std::int64_t m = n * pixels; m < (n + 1) * pixels; ++m)
            for (std::int64_t c = 0; c < channels; c += LANES) {
                const __mmask16 mask = mask_of(channels - c);
                const __m512 e = _mm512_maskz_loadu_ps(mask, extra + n * channels + c);
                store(out.row(m) + c, mask, narrow(_mm512_add_ps(load(x.row(m) + c, mask), e)));
            }
}

}  // extern "C"

// Squeeze and rescaling of a map by the gates of its channels, with their gradients.

#include "maps.h"

extern "C" {

// Mean over the rows of each image: (N, C).
void senet_squeeze(Element *x_, i64 ldx, i64 images, i64 pixels, i64 channels, i64 threads, float *mean) {
    const Map x{x_, ldx};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(x, mean)
    for (i64 n = 0; n < images; ++n)
        each_vector(channels, [&](i64 c, auto lanes) {
            Vec sum(0.f);
            for (i64 m = n * pixels; m < (n + 1) * pixels; ++m) sum = sum + load(x.row(m) + c, lanes);
            store(mean + n * channels + c, lanes, sum / Vec(static_cast<float>(pixels)));
        });
}

// y = x gate, or, with a residual, y = max(x gate + residual, 0); gate is (N, C).
void senet_scale(Element *x_, i64 ldx, Element *residual_, i64 ldr, const float *gate, i64 images, i64 pixels,
                 i64 channels, i64 threads, Element *y_) {
    const Map x{x_, ldx}, r{residual_, ldr}, y{y_, channels};
    each_row(images * pixels, channels, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            Vec v = load(x.row(m) + c, lanes) * load(gate + m / pixels * channels + c, lanes);
            if (r) v = at::vec::clamp_min(v + load(r.row(m) + c, lanes), Vec(0.f));
            store(y.row(m) + c, lanes, v);
        };
    });
}

// Backward of senet_scale: dx = g gate, dgate = sum of g x over an image, and g = dy where y > 0,
// written out, if there was a residual (y is given then).
void senet_scale_back(Element *dy_, i64 ldy, Element *x_, i64 ldx, Element *y_, const float *gate, i64 images,
                      i64 pixels, i64 channels, i64 threads, Element *dx_, Element *g_, float *dgate) {
    const Map d{dy_, ldy}, x{x_, ldx}, y{y_, channels}, o{dx_, channels}, g{g_, channels};
#pragma omp parallel for num_threads(threads) schedule(static) firstprivate(d, x, y, o, g, gate)
    for (i64 n = 0; n < images; ++n)
        each_vector(channels, [&](i64 c, auto lanes) {
            const Vec factor = load(gate + n * channels + c, lanes);
            Vec sum(0.f);
            for (i64 m = n * pixels; m < (n + 1) * pixels; ++m) {
                Vec v = load(d.row(m) + c, lanes);
                if (y) {
                    v = v & (load(y.row(m) + c, lanes) > Vec(0.f));
                    store(g.row(m) + c, lanes, v);
                }
                sum = at::vec::fmadd(v, load(x.row(m) + c, lanes), sum);
                store(o.row(m) + c, lanes, v * factor);
            }
            store(dgate + n * channels + c, lanes, sum);
        });
}

// out = x + extra, the same extra (N, C) for all pixels of an image.
void senet_spread(Element *x_, i64 ldx, const float *extra, i64 images, i64 pixels, i64 channels, i64 threads,
                  Element *out_) {
    const Map x{x_, ldx}, out{out_, channels};
    each_row(images * pixels, channels, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            store(out.row(m) + c, lanes, load(x.row(m) + c, lanes) + load(extra + m / pixels * channels + c, lanes));
        };
    });
}

}  // extern "C"

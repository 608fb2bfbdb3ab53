// A map taken apart into streams of its channels, and its 2x2 mean.

#include "maps.h"

extern "C" {

// Stream i of x, channels i w to (i + 1) w, to streams[i] (rows, w), i = 0..s-1, but to streams[1] the
// sum of streams 0 and 1.
void senet_split(Element *x_, i64 ldx, i64 rows, i64 w, i64 s, i64 threads, Element *const *streams) {
    const Map x{x_, ldx};
    each_row(rows, w, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            for (i64 i = 0; i < s; ++i) {
                const Element *from = x.row(m) + i * w + c;
                const Vec v = load(from, lanes);
                store(streams[i] + m * w + c, lanes, i == 1 ? v + load(from - w, lanes) : v);
            }
        };
    });
}

// Its gradient: the streams side by side in out (rows, s w), but as stream 0 the sum of streams 0 and 1.
void senet_join(Element *const *streams, i64 rows, i64 w, i64 s, i64 threads, Element *out) {
    each_row(rows, w, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            for (i64 i = 0; i < s; ++i) {
                const Vec v = load(streams[i] + m * w + c, lanes);
                store(out + (m * s + i) * w + c, lanes, i == 0 ? v + load(streams[1] + m * w + c, lanes) : v);
            }
        };
    });
}

// Mean of 2x2 pixels: y (images, height / 2, width / 2, channels).
void senet_pool(Element *x_, i64 ldx, i64 images, i64 height, i64 width, i64 channels, i64 threads, Element *y_) {
    const Map x{x_, ldx}, y{y_, channels};
    each_row(images * height / 2 * width / 2, channels, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            const i64 top = m / (width / 2) * 2 * width + m % (width / 2) * 2, bottom = top + width;
            const Vec above = load(x.row(top) + c, lanes) + load(x.row(top + 1) + c, lanes);
            const Vec below = load(x.row(bottom) + c, lanes) + load(x.row(bottom + 1) + c, lanes);
            store(y.row(m) + c, lanes, Vec(0.25f) * (above + below));
        };
    });
}

// Its gradient: a quarter of dy for each of the four pixels.
void senet_pool_back(Element *dy_, i64 ldy, i64 images, i64 height, i64 width, i64 channels, i64 threads,
                     Element *dx_) {
    const Map dy{dy_, ldy}, dx{dx_, channels};
    each_row(images * height / 2 * width / 2, channels, threads, [=](i64 c, auto lanes) {
        return [=](i64 m) {
            const i64 top = m / (width / 2) * 2 * width + m % (width / 2) * 2, bottom = top + width;
            const Vec share = Vec(0.25f) * load(dy.row(m) + c, lanes);
            for (const i64 pixel : {top, top + 1, bottom, bottom + 1}) store(dx.row(pixel) + c, lanes, share);
        };
    });
}

}  // extern "C"

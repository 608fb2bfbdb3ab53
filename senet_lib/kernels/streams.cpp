// A map taken apart into streams of its channels.

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

}  // extern "C"

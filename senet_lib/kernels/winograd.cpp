// 3x3 convolution at stride 1 with zero padding 1, by Winograd's minimal filtering F(4x4, 3x3).
//
// y = A^T [(G w G^T) . (B^T x B)] A over tiles of 4x4 results, each from 6x6 pixels that overlap by
// two: 36 multiplications a tile and pair of channels, where the sum over the taps needs 144. At each
// of the 36 places of the 6x6 plane the sum over channels is a matrix product of V = B^T x B and
// U = G w G^T. All of it is float, whatever a map's elements are. Lavin and Gray 2016
// (arXiv:1509.09308), sections 4.1 and 4.3.
//
// H and W are multiples of 4. Tiles are counted through the images, row by row. A weight is
// (9, K, N): K channels are summed over, N made.

#include "maps.h"

namespace {

constexpr i64 P = 36, TAPS = 9, SIDE = 4;
constexpr i64 ROWS = 6, PANEL = 2;  // of the block of a product that stays in registers: rows, vectors
constexpr i64 ODD = 16;             // keeps the places of a buffer in different cache sets

struct Plane {
    i64 images, height, width;
    i64 across() const { return width / SIDE; }
    i64 per_image() const { return height / SIDE * across(); }
    i64 tiles() const { return images * per_image(); }
    i64 pixel(i64 image, i64 y, i64 x) const { return (image * height + y) * width + x; }
};

// Tiles `first` to `first + count`, a row of tiles at a time: body(tile - first, image, y, x, tiles), where
// the results of the first tile begin at pixel (y, x).
template <typename Body>
void strips(const Plane &plane, i64 first, i64 count, const Body &body) {
    for (i64 done = 0; done < count;) {
        const i64 rest = (first + done) % plane.per_image(), i = rest / plane.across(), j = rest % plane.across();
        const i64 tiles = std::min(count - done, plane.across() - j);
        body(done, (first + done) / plane.per_image(), SIDE * i, SIDE * j, tiles);
        done += tiles;
    }
}

// ---- the transforms in one dimension, which evaluate polynomials at 0, +-A, +-B and infinity.
// A B = 1, and 2/3 instead of the usual 1 and 2 halves the rounding error.

constexpr float A = 2.f / 3, B = 3.f / 2, A2 = A * A, B2 = B * B, A3 = A2 * A, B3 = B2 * B;
constexpr float OF_A = 1 / (2 * A2 * (A2 - B2)), OF_B = 1 / (2 * B2 * (B2 - A2));  // Lagrange's denominators

inline Vec times(float factor, const Vec &a) { return Vec(factor) * a; }
inline Vec plus(const Vec &a, float factor, const Vec &b) { return at::vec::fmadd(Vec(factor), b, a); }

// B^T d
inline void input(const Vec (&d)[6], Vec (&out)[6]) {
    const Vec even_a = plus(d[4], -B2, d[2]), odd_a = plus(times(A, d[3]), -B, d[1]);
    const Vec even_b = plus(d[4], -A2, d[2]), odd_b = plus(times(B, d[3]), -A, d[1]);
    out[0] = plus(d[0] + d[4], -(A2 + B2), d[2]);
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = plus(d[1] + d[5], -(A2 + B2), d[3]);
}

// A^T m
inline void output(const Vec (&m)[6], Vec (&out)[4]) {
    const Vec even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
    out[0] = m[0] + even_a + even_b;
    out[1] = plus(times(A, odd_a), B, odd_b);
    out[2] = plus(times(A2, even_a), B2, even_b);
    out[3] = plus(plus(m[5], A3, odd_a), B3, odd_b);
}

// A y, the transpose of `output`
inline void output_back(const Vec (&y)[4], Vec (&out)[6]) {
    const Vec even_a = plus(y[0], A2, y[2]), odd_a = plus(times(A, y[1]), A3, y[3]);
    const Vec even_b = plus(y[0], B2, y[2]), odd_b = plus(times(B, y[1]), B3, y[3]);
    out[0] = y[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = y[3];
}

// G w
inline void kernel(const Vec (&w)[3], Vec (&out)[6]) {
    const Vec even_a = plus(times(OF_A, w[0]), OF_A * A2, w[2]), odd_a = times(OF_A * A, w[1]);
    const Vec even_b = plus(times(OF_B, w[0]), OF_B * B2, w[2]), odd_b = times(OF_B * B, w[1]);
    out[0] = w[0];
    out[1] = even_a + odd_a;
    out[2] = even_a - odd_a;
    out[3] = even_b + odd_b;
    out[4] = even_b - odd_b;
    out[5] = w[2];
}

// G^T u, the transpose of `kernel`
inline void kernel_back(const Vec (&u)[6], Vec (&out)[3]) {
    const Vec even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
    out[0] = plus(plus(u[0], OF_A, even_a), OF_B, even_b);
    out[1] = plus(times(OF_A * A, odd_a), OF_B * B, odd_b);
    out[2] = plus(plus(u[5], OF_A * A2, even_a), OF_B * B2, even_b);
}

// ---- the transforms of tiles, a vector of channels at a time

// A buffer of some tiles' places: [place][tile][channels].
struct Places {
    float *data;
    i64 ld, place;
    float *at(i64 p, i64 tile) const { return data + p * place + tile * ld; }
};

// V = B^T x B of the tiles of a strip.
template <typename Lanes>
inline void input_strip(const Map &x, const Plane &plane, i64 c, Lanes lanes, i64 image, i64 y, i64 left, i64 tiles,
                        const Places &v, i64 tile) {
    const Element *rows[6];
    bool inside[6];
    for (int r = 0; r < 6; ++r) {
        inside[r] = y + r >= 1 && y + r <= plane.height;
        rows[r] = x.row(plane.pixel(image, inside[r] ? y + r - 1 : 0, 0)) + c;
    }
    Vec half[6][6];  // B^T x; a tile shares two columns with the next
    const auto column = [&](int q, i64 at) {
        Vec d[6], made[6];
        for (int r = 0; r < 6; ++r)
            d[r] = inside[r] && at >= 0 && at < plane.width ? load(rows[r] + at * x.ld, lanes) : Vec(0.f);
        input(d, made);
        for (int r = 0; r < 6; ++r) half[r][q] = made[r];
    };
    column(0, left - 1);
    column(1, left);
    for (i64 t = 0; t < tiles; ++t) {
        for (int q = 2; q < 6; ++q) column(q, left + SIDE * t + q - 1);
        float *to = v.at(0, tile + t) + c;
        for (int r = 0; r < 6; ++r) {
            Vec made[6];
            input(half[r], made);
            for (int q = 0; q < 6; ++q, to += v.place) made[q].store(to);
            half[r][0] = half[r][4];
            half[r][1] = half[r][5];
        }
    }
}

// D = A dy A^T of the tiles of a strip, to channel `at` of a buffer.
template <typename Lanes>
inline void gradient_strip(const Map &dy, const Plane &plane, i64 c, Lanes lanes, i64 image, i64 y, i64 left,
                           i64 tiles, const Places &d, i64 tile, i64 at) {
    for (i64 t = 0; t < tiles; ++t) {
        Vec half[6][4];
        for (int q = 0; q < 4; ++q) {
            Vec column[4], made[6];
            for (int r = 0; r < 4; ++r)
                column[r] = load(dy.row(plane.pixel(image, y + r, left + SIDE * t + q)) + c, lanes);
            output_back(column, made);
            for (int r = 0; r < 6; ++r) half[r][q] = made[r];
        }
        float *to = d.at(0, tile + t) + at;
        for (int r = 0; r < 6; ++r) {
            Vec made[6];
            output_back(half[r], made);
            for (int q = 0; q < 6; ++q, to += d.place) made[q].store(to);
        }
    }
}

// Sums of a block for the mean and variance of a vector of channels, relative to its first result.
struct Moments {
    float *origin, *first, *second;
    Moments() : origin(nullptr), first(nullptr), second(nullptr) {}
    Moments(float *sums, i64 n) : origin(sums), first(sums + n), second(sums + 2 * n) {}
    void add(const Vec (&rows)[4][4], i64 n, bool begins) const {
        if (first == nullptr) return;
        if (begins) {
            rows[0][0].store(origin + n);
            Vec(0.f).store(first + n);
            Vec(0.f).store(second + n);
        }
        const Vec start = Vec::loadu(origin + n);
        Vec a = Vec::loadu(first + n), b = Vec::loadu(second + n);
        for (int r = 0; r < 4; ++r)
            for (int q = 0; q < 4; ++q) {
                const Vec away = rows[r][q] - start;
                a = a + away;
                b = at::vec::fmadd(away, away, b);
            }
        a.store(first + n);
        b.store(second + n);
    }
};

// y = A^T m A of the tiles of a strip, from vector `n` of a buffer.
template <typename Lanes>
inline void output_strip(const Places &m, i64 tile, i64 n, const Plane &plane, const Map &y, i64 c, Lanes lanes,
                         i64 image, i64 top, i64 left, i64 tiles, const Moments &moments, i64 sums) {
    for (i64 t = 0; t < tiles; ++t) {
        Vec half[4][6], made[4][4];
        const float *from = m.at(0, tile + t) + n;
        for (int q = 0; q < 6; ++q) {
            Vec column[6], result[4];
            for (int r = 0; r < 6; ++r) column[r] = Vec::loadu(from + (6 * r + q) * m.place);
            output(column, result);
            for (int r = 0; r < 4; ++r) half[r][q] = result[r];
        }
        for (int r = 0; r < 4; ++r) {
            output(half[r], made[r]);
            Element *to = y.row(plane.pixel(image, top + r, left + SIDE * t)) + c;
            for (int q = 0; q < 4; ++q, to += y.ld) store(to, lanes, made[r][q]);
        }
        moments.add(made, sums, tile + t == 0);
    }
}

// ---- the products

// C[i][n] = (or, with `add`, +=) sum over k of A[i][k] B[k][n], ROWS by NV vectors. A[i][k] lies at
// a[i row + k step].
template <int NV>
inline void product(const float *a, i64 row, i64 step, const float *b, i64 ldb, i64 count, bool add, float *c,
                    i64 ldc) {
    Vec sum[ROWS][NV];
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < NV; ++j) sum[i][j] = Vec(0.f);
    for (i64 k = 0; k < count; ++k, a += step, b += ldb) {
        Vec line[NV];
        for (int j = 0; j < NV; ++j) line[j] = Vec::loadu(b + j * LANES);
        for (int i = 0; i < ROWS; ++i) {
            const Vec factor(a[i * row]);
            for (int j = 0; j < NV; ++j) sum[i][j] = at::vec::fmadd(factor, line[j], sum[i][j]);
        }
    }
    for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < NV; ++j) {
            float *to = c + i * ldc + j * LANES;
            (add ? Vec::loadu(to) + sum[i][j] : sum[i][j]).store(to);
        }
}

inline void products(i64 rows, i64 count_of_vectors, const float *a, i64 row, i64 step, const float *b, i64 ldb,
                     i64 count, bool add, float *c, i64 ldc) {
    for (i64 n = 0; n < count_of_vectors; n += PANEL)
        for (i64 i = 0; i < rows; i += ROWS) {
            float *to = c + i * ldc + n * LANES;
            if (count_of_vectors - n >= PANEL)
                product<PANEL>(a + i * row, row, step, b + n * LANES, ldb, count, add, to, ldc);
            else
                product<1>(a + i * row, row, step, b + n * LANES, ldb, count, add, to, ldc);
        }
}

// How many tiles a block has, so that it stays in a cache of 256 KiB: a multiple of ROWS.
inline i64 tiles_of_block(i64 floats_of_tile) {
    const i64 fit = 65536 / (P * floats_of_tile) / ROWS * ROWS;
    return std::max<i64>(12, std::min<i64>(96, fit));
}

// The mean and biased variance of each channel from the sums of all blocks of `block` rows, by Chan's
// formula and in their order: the number of threads changes no bit.
void join_moments(const float *sums, i64 rows, i64 block, i64 channels, float *mean, float *variance) {
    const i64 N = vectors(channels) * LANES, blocks = (rows + block - 1) / block;
    for (i64 v = 0; v < vectors(channels); ++v)
        for (i64 k = v * LANES; k < std::min(v * LANES + LANES, v * LANES + channels); ++k) {
            double centre = 0, spread = 0, seen = 0;
            for (i64 b = 0; b < blocks; ++b) {
                const float *of_block = sums + b * 3 * N + k;
                const double more = std::min(block, rows - b * block), share = more / (seen + more);
                const double shift = of_block[N] / more, away = of_block[0] + shift - centre;
                spread += of_block[2 * N] - shift * of_block[N] + away * away * seen * share;
                centre += away * share;
                seen += more;
            }
            const i64 c = offset(v, channels) + k - v * LANES;
            mean[c] = static_cast<float>(centre);
            variance[c] = static_cast<float>(spread > 0 ? spread / seen : 0);
        }
}

}  // namespace

extern "C" {

// How many floats U holds where `out` channels are made from `in`.
i64 senet_winograd_kernel_size(i64 in, i64 out) { return P * (in * vectors(out) * LANES + ODD); }

// U = G w G^T: [place][K][vectors of N] from a weight (9, K, N).
void senet_winograd_kernel(const float *w, i64 in, i64 out, i64 threads, float *u) {
    const i64 ld = vectors(out) * LANES, place = in * ld + ODD;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 k = 0; k < in; ++k) {
        i64 n = 0;
        each_vector(out, [&](i64 c, auto lanes) {
            Vec half[6][3];
            for (int q = 0; q < 3; ++q) {
                Vec column[3], made[6];
                for (int r = 0; r < 3; ++r) column[r] = load(w + ((3 * r + q) * in + k) * out + c, lanes);
                kernel(column, made);
                for (int r = 0; r < 6; ++r) half[r][q] = made[r];
            }
            float *to = u + k * ld + n;
            for (int r = 0; r < 6; ++r) {
                Vec made[6];
                kernel(half[r], made);
                for (int q = 0; q < 6; ++q, to += place) made[q].store(to);
            }
            n += LANES;
        });
    }
}

// y = x convolved with the kernels of U; with it, if wanted, the mean and biased variance of each
// channel of y, both (out).
void senet_winograd(Element *x_, i64 ldx, const float *u, i64 images, i64 height, i64 width, i64 in, i64 out,
                    i64 threads, Element *y_, i64 ldy, float *mean, float *variance) {
    const Plane plane{images, height, width};
    const Map x{x_, ldx}, y{y_, ldy};
    const i64 K = round_up(in, LANES), N = vectors(out) * LANES, block = tiles_of_block(K);
    const i64 tiles = plane.tiles(), blocks = (tiles + block - 1) / block, of_kernel = in * N + ODD;
    const Buffer sums = buffer(mean ? blocks * 3 * N : 0);
#pragma omp parallel num_threads(threads)
    {
        const i64 of_v = block * K + ODD, of_m = block * PANEL * LANES + ODD;
        const Buffer v_ = buffer(P * of_v), m_ = buffer(P * of_m);
        const Places v{v_.get(), K, of_v}, m{m_.get(), PANEL * LANES, of_m};
        std::fill(v.data, v.data + P * of_v, 0.f);
#pragma omp for schedule(static)
        for (i64 b = 0; b < blocks; ++b) {
            const i64 first = b * block, count = std::min(block, tiles - first);
            const Moments moments = mean ? Moments(sums.get() + b * 3 * N, N) : Moments();
            strips(plane, first, count, [&](i64 tile, i64 image, i64 top, i64 left, i64 many) {
                each_vector(in, [&](i64 c, auto lanes) {
                    input_strip(x, plane, c, lanes, image, top, left, many, v, tile);
                });
            });
            for (i64 n = 0; n < vectors(out); n += PANEL) {
                const i64 wide = std::min(PANEL, vectors(out) - n);
                for (i64 p = 0; p < P; ++p)
                    products(count, wide, v.at(p, 0), K, 1, u + p * of_kernel + n * LANES, N, in, false, m.at(p, 0),
                             m.ld);
                strips(plane, first, count, [&](i64 tile, i64 image, i64 top, i64 left, i64 many) {
                    for (i64 e = 0; e < wide; ++e) {
                        const auto finish = [&](i64 c, auto lanes) {
                            output_strip(m, tile, e * LANES, plane, y, c, lanes, image, top, left, many, moments,
                                         (n + e) * LANES);
                        };
                        if (out < LANES)
                            finish(0, Part{out});
                        else
                            finish(offset(n + e, out), Whole{});
                    }
                });
            }
        }
    }
    if (mean != nullptr) join_moments(sums.get(), 16 * tiles, 16 * block, out, mean, variance);
}

// The gradient of the weight: dw (9, in, out) = G^T [sum over tiles of V^T D] G. The threads share the
// tiles, and their sums are added in the threads' order.
void senet_winograd_weight(Element *x_, i64 ldx, Element *dy_, i64 ldy, i64 images, i64 height, i64 width, i64 in,
                           i64 out, i64 threads, float *dw) {
    const Plane plane{images, height, width};
    const Map x{x_, ldx}, dy{dy_, ldy};
    const i64 K = round_up(in, LANES), N = vectors(out) * LANES, block = tiles_of_block(K + N);
    const i64 tiles = plane.tiles(), blocks = (tiles + block - 1) / block;
    const i64 slabs = std::min(threads, blocks), place = round_up(in, ROWS) * N;
    const Buffer sums = buffer(slabs * P * place);
#pragma omp parallel for num_threads(slabs) schedule(static, 1)
    for (i64 slab = 0; slab < slabs; ++slab) {
        const i64 of_v = block * K + ODD, of_d = block * N + ODD;
        const Buffer v_ = buffer(P * of_v), d_ = buffer(P * of_d);
        const Places v{v_.get(), K, of_v}, d{d_.get(), N, of_d};
        std::fill(v.data, v.data + P * of_v, 0.f);
        const i64 from = blocks * slab / slabs, to = blocks * (slab + 1) / slabs;
        for (i64 b = from; b < to; ++b) {
            const i64 first = b * block, count = std::min(block, tiles - first);
            strips(plane, first, count, [&](i64 tile, i64 image, i64 top, i64 left, i64 many) {
                each_vector(in, [&](i64 c, auto lanes) {
                    input_strip(x, plane, c, lanes, image, top, left, many, v, tile);
                });
                i64 n = 0;
                each_vector(out, [&](i64 c, auto lanes) {
                    gradient_strip(dy, plane, c, lanes, image, top, left, many, d, tile, n);
                    n += LANES;
                });
            });
            for (i64 p = 0; p < P; ++p)
                products(round_up(in, ROWS), vectors(out), v.at(p, 0), 1, K, d.at(p, 0), N, count, b > from,
                         sums.get() + (slab * P + p) * place, N);
        }
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 k = 0; k < in; ++k) {
        i64 n = 0;
        each_vector(out, [&](i64 c, auto lanes) {
            Vec half[3][6];
            for (int q = 0; q < 6; ++q) {
                Vec column[6], made[3];
                for (int r = 0; r < 6; ++r) {
                    column[r] = Vec(0.f);
                    for (i64 slab = 0; slab < slabs; ++slab)
                        column[r] = column[r] + Vec::loadu(&sums[(slab * P + 6 * r + q) * place + k * N + n]);
                }
                kernel_back(column, made);
                for (int r = 0; r < 3; ++r) half[r][q] = made[r];
            }
            for (int r = 0; r < 3; ++r) {
                Vec made[3];
                kernel_back(half[r], made);
                for (int q = 0; q < 3; ++q) store(dw + ((3 * r + q) * in + k) * out + c, lanes, made[q]);
            }
            n += LANES;
        });
    }
}

}  // extern "C"

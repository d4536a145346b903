// 3x3 convolutions of channels_last images by Winograd's F(4x4, 3x3), with the gates of a ConvLSTM
// as one of the things that may follow; torch-free.
//
// Data flow.  An output tile of 4x4 pixels comes from 6x6 of the input: V = B^T d B, then for each
// of the 36 positions a product over channels M = V U with the transformed weights U = G g G^T,
// then Y = A^T M A: 36 multiplications where the plain sum has 144.  A thread takes up to kTiles
// tiles: it transforms them (36 numbers written a tile and channel), and for each block of 64
// output columns runs the 36 products from cache, transforms back and hands the 4x4 pixels on: to
// memory, or straight into the gates, so that pre-activations are never written.  A block of
// columns is 64 output channels, or the four gates of 16 hidden channels.  Weights are read once
// for kTiles tiles.
//
// The points are 0, +-5/8, +-3/2 and infinity, exact in binary and among simple pairs the one with
// the smallest error: two to seven times that of plain sums from 16 to 300 channels.
// Short types are widened on load; all arithmetic is float.
#pragma once
#include "cpu/kernels/conv_lstm.inl.h"

namespace amstel::AMSTEL_ISA {

constexpr int kColumns = cpu::kWinogradColumns, kGateWidth = cpu::kWinogradGates;  // of a block
constexpr int kLanes = kVectorBytes / sizeof(float);
static_assert(kLanes <= cpu::kWinogradLanes);
constexpr int kPanel = 2 * kLanes;  // columns that a product keeps in registers, times kRows tiles
constexpr int kRows = kVectorBytes == 64 ? 8 : kVectorBytes == 32 ? 6 : 4;
using Floats = Vector<float, kLanes>;

constexpr float kA = 0.625f, kB = 1.5f;
constexpr float kA2 = kA * kA, kB2 = kB * kB, kA3 = kA2 * kA, kB3 = kB2 * kB;

// B^T d
inline __attribute__((always_inline)) void transform_input(const Floats (&d)[6], Floats (&t)[6]) {
  t[0] = kA2 * kB2 * d[0] - (kA2 + kB2) * d[2] + d[4];
  Floats even = d[4] - kB2 * d[2], odd = kA * (d[3] - kB2 * d[1]);
  t[1] = even + odd, t[2] = even - odd;
  even = d[4] - kA2 * d[2], odd = kB * (d[3] - kA2 * d[1]);
  t[3] = even + odd, t[4] = even - odd;
  t[5] = kA2 * kB2 * d[1] - (kA2 + kB2) * d[3] + d[5];
}

// A^T m
inline __attribute__((always_inline)) void transform_output(const Floats (&m)[6], Floats (&y)[4]) {
  const Floats sum_a = m[1] + m[2], dif_a = m[1] - m[2];
  const Floats sum_b = m[3] + m[4], dif_b = m[3] - m[4];
  y[0] = m[0] + sum_a + sum_b;
  y[1] = kA * dif_a + kB * dif_b;
  y[2] = kA2 * sum_a + kB2 * sum_b;
  y[3] = kA3 * dif_a + kB3 * dif_b + m[5];
}

// A y, the adjoint
inline __attribute__((always_inline)) void transform_gradient(const Floats (&y)[4],
                                                              Floats (&m)[6]) {
  m[0] = y[0];
  Floats even = y[0] + kA2 * y[2], odd = kA * y[1] + kA3 * y[3];
  m[1] = even + odd, m[2] = even - odd;
  even = y[0] + kB2 * y[2], odd = kB * y[1] + kB3 * y[3];
  m[3] = even + odd, m[4] = even - odd;
  m[5] = y[3];
}

// G g for three rows of three
constexpr float kNa = 1 / (2 * kA2 * (kA2 - kB2)), kNb = 1 / (2 * kB2 * (kB2 - kA2));
inline __attribute__((always_inline)) void transform_weight(const Floats (&g)[3], Floats (&t)[6]) {
  t[0] = g[0] * (1 / (kA2 * kB2));
  Floats even = kNa * g[0] + kNa * kA2 * g[2], odd = kNa * kA * g[1];
  t[1] = even + odd, t[2] = even - odd;
  even = kNb * g[0] + kNb * kB2 * g[2], odd = kNb * kB * g[1];
  t[3] = even + odd, t[4] = even - odd;
  t[5] = g[2];
}

// ---- Weights ----

// Packed as [block of columns][36][panel][input channel][kPanel]; columns beyond the last are zero.
inline void winograd_weight(const cpu::WinogradWeightArgs& a, int64_t begin, int64_t end) {
  for (int64_t block = begin; block < end; ++block) {
    float* const packed = a.packed + block * 36 * kColumns * a.inputs;
    for (int first = 0; first < kColumns; first += kLanes) {
      // The output channel of each lane, -1 where there is none.
      int64_t output[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        const int64_t column = first + l;
        const int64_t channel =
            a.gates ? block * kGateWidth + column % kGateWidth : block * kColumns + column;
        const int64_t width = a.gates ? a.outputs / 4 : a.outputs;
        output[l] = channel < width ? channel + (a.gates ? column / kGateWidth * width : 0) : -1;
      }
      float* const to = packed + first / kPanel * a.inputs * kPanel + first % kPanel;
      constexpr int kChunk = 8;  // input channels gathered at once, so that whole lines are read
      for (int64_t k = 0; k < a.inputs; k += kChunk) {
        const int chunk = a.inputs - k < kChunk ? static_cast<int>(a.inputs - k) : kChunk;
        float taps[kChunk][9][kLanes];
        const auto gather = [&](int l, int j) __attribute__((always_inline)) {
          const float* const from =
              a.weight + output[l] * a.output_stride + (k + j) * a.input_stride;
          for (int e = 0; e < 9; ++e)
            taps[j][a.flip ? 8 - e : e][l] = output[l] < 0 ? 0.f : from[e];
        };
        if (a.output_stride < a.input_stride) {  // along the memory, either way
          for (int j = 0; j < chunk; ++j)
            for (int l = 0; l < kLanes; ++l) gather(l, j);
        } else {
          for (int l = 0; l < kLanes; ++l)
            for (int j = 0; j < chunk; ++j) gather(l, j);
        }
        for (int j = 0; j < chunk; ++j) {
          Floats half[3][6];  // along a row
          for (int r = 0; r < 3; ++r) {
            const Floats g[3] = {load_raw<Floats>(taps[j][3 * r]),
                                 load_raw<Floats>(taps[j][3 * r + 1]),
                                 load_raw<Floats>(taps[j][3 * r + 2])};
            transform_weight(g, half[r]);
          }
          for (int c = 0; c < 6; ++c) {
            Floats u[6];
            transform_weight({half[0][c], half[1][c], half[2][c]}, u);
            for (int r = 0; r < 6; ++r) {
              float* const at = to + (r * 6 + c) * kColumns * a.inputs + (k + j) * kPanel;
              if (a.stream)
                stream(at, u[r]);
              else
                __builtin_memcpy(at, &u[r], sizeof(Floats));
            }
          }
        }
      }
    }
  }
  if (a.stream) stream_end();
}

// ---- Tiles ----

struct TileAt {
  int64_t item, y, x;  // of its first output pixel
};

inline TileAt tile_at(const cpu::WinogradShape& s, int64_t tile) {
  const int64_t across = s.across(), down = s.down();
  return {tile / (across * down), tile / across % down * 4, tile % across * 4};
}

// Row `row` of V in 36 planes, from its channel `at` on; a vector may run over into the next row,
// which is written later.
template <class T>
void transform_tile(const T* image, const cpu::WinogradShape& s, int64_t channels, TileAt tile,
                    float* to, int64_t plane) {
  image += tile.item * s.height * s.width * channels;
  for (int64_t k = 0; k < channels; k += kLanes) {
    Floats half[6][6];
    for (int c = 0; c < 6; ++c) {
      const int64_t x = tile.x + c - 1;
      Floats d[6];
      for (int r = 0; r < 6; ++r) {
        const int64_t y = tile.y + r - 1;
        const bool inside = x >= 0 && x < s.width && y >= 0 && y < s.height;
        d[r] = inside ? load_wide<T, kLanes>(image + (y * s.width + x) * channels + k, channels - k)
                      : Floats{};
      }
      Floats t[6];
      transform_input(d, t);
      for (int r = 0; r < 6; ++r) half[r][c] = t[r];
    }
    for (int r = 0; r < 6; ++r) {
      Floats v[6];
      transform_input(half[r], v);
      for (int c = 0; c < 6; ++c)
        __builtin_memcpy(to + (r * 6 + c) * plane + k, &v[c], sizeof(Floats));
    }
  }
}

// Likewise of the gradient of an output, with A instead of B^T.
template <class T>
void transform_gradient_tile(const T* image, const cpu::WinogradShape& s, int64_t channels,
                             TileAt tile, float* to, int64_t plane) {
  image += tile.item * s.height * s.width * channels;
  for (int64_t k = 0; k < channels; k += kLanes) {
    Floats half[6][4];
    for (int c = 0; c < 4; ++c) {
      Floats d[4];
      for (int r = 0; r < 4; ++r) {
        const int64_t y = tile.y + r, x = tile.x + c;
        d[r] = x < s.width && y < s.height
                   ? load_wide<T, kLanes>(image + (y * s.width + x) * channels + k, channels - k)
                   : Floats{};
      }
      Floats t[6];
      transform_gradient(d, t);
      for (int r = 0; r < 6; ++r) half[r][c] = t[r];
    }
    for (int r = 0; r < 6; ++r) {
      Floats m[6];
      transform_gradient(half[r], m);
      for (int c = 0; c < 6; ++c)
        __builtin_memcpy(to + (r * 6 + c) * plane + k, &m[c], sizeof(Floats));
    }
  }
}

// The 36 planes of tiles [begin, end) to rows of planes apart `plane`, for the gradient of the
// weights. The last vector of a row stays inside it.
template <class T, bool kGradient>
void winograd_planes(const cpu::WinogradPlanesArgs& a, int64_t begin, int64_t end) {
  for (int64_t tile = begin; tile < end; ++tile) {
    const TileAt at = tile_at(a.shape, a.first + tile);
    float* const row = a.planes + tile * a.width + a.offset;
    const T* const image = static_cast<const T*>(a.image);
    const auto transform = [&](float* to, int64_t plane) {
      if constexpr (kGradient)
        transform_gradient_tile(image, a.shape, a.channels, at, to, plane);
      else
        transform_tile(image, a.shape, a.channels, at, to, plane);
    };
    if (a.channels % kLanes == 0) {
      transform(row, a.plane);
    } else {
      transform(a.scratch, a.channels + kLanes);
      for (int e = 0; e < 36; ++e)
        __builtin_memcpy(row + e * a.plane, a.scratch + e * (a.channels + kLanes),
                         a.channels * sizeof(float));
    }
  }
}

// ---- Products ----

// kRows tiles times one panel: out[r][c] = sum_k v[r][k] u[k][c].
inline void product(const float* v, int64_t inputs, const float* u, float* out) {
  Floats sum[kRows][2] = {};
  for (int64_t k = 0; k < inputs; ++k, u += kPanel) {
    const auto left = load_raw<Floats>(u), right = load_raw<Floats>(u + kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const float factor = v[r * inputs + k];
      sum[r][0] += factor * left;
      sum[r][1] += factor * right;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) __builtin_memcpy(out + r * kColumns, sum[r], sizeof(sum[r]));
}

// The pixels of kLanes columns of a tile.
inline __attribute__((always_inline)) void transform_back(const float* m, int64_t plane,
                                                          Floats (&y)[4][4]) {
  Floats half[4][6];
  for (int c = 0; c < 6; ++c) {
    Floats d[6], t[4];
    for (int r = 0; r < 6; ++r) d[r] = load_raw<Floats>(m + (r * 6 + c) * plane);
    transform_output(d, t);
    for (int r = 0; r < 4; ++r) half[r][c] = t[r];
  }
  for (int r = 0; r < 4; ++r) transform_output(half[r], y[r]);
}

// f(pixel, r, c) for the pixels of a tile that lie in the image.
template <class F>
inline __attribute__((always_inline)) void for_pixels(const cpu::WinogradShape& s, TileAt at,
                                                      const F& f) {
  for (int r = 0; r < 4 && at.y + r < s.height; ++r)
    for (int c = 0; c < 4 && at.x + c < s.width; ++c)
      f((at.item * s.height + at.y + r) * s.width + at.x + c, r, c);
}

template <class T>
void finish_plain(const cpu::WinogradArgs& a, TileAt at, int64_t block, const float* m,
                  int64_t plane) {
  const auto* const bias = static_cast<const float*>(a.bias);
  for (int first = 0; first < kColumns; first += kLanes) {
    const int64_t k = block * kColumns + first, n = a.outputs - k;
    if (n <= 0) return;
    Floats y[4][4];
    transform_back(m + first, plane, y);
    const Floats b = bias ? load_wide<float, kLanes>(bias + k, n) : Floats{};
    for_pixels(a.shape, at, [&](int64_t pixel, int r, int c) __attribute__((always_inline)) {
      store_wide<T, kLanes>(static_cast<T*>(a.out) + pixel * a.outputs + k, y[r][c] + b, n);
    });
  }
}

template <class T>
void finish_gates(const cpu::WinogradArgs& a, TileAt at, int64_t block, const float* m,
                  int64_t plane) {
  const int64_t hidden = a.outputs / 4;
  const auto* const p = static_cast<const float*>(a.lstm.peephole);
  const auto* const bias = static_cast<const float*>(a.bias);
  for (int first = 0; first < kGateWidth; first += kLanes) {
    const int64_t k = block * kGateWidth + first, n = hidden - k;
    if (n <= 0) return;
    Floats y[4][4][4];
    for (int gate = 0; gate < 4; ++gate)
      transform_back(m + gate * kGateWidth + first, plane, y[gate]);
    Floats b[4] = {}, w[3] = {};
    for (int gate = 0; bias && gate < 4; ++gate)
      b[gate] = load_wide<float, kLanes>(bias + gate * hidden + k, n);
    for (int gate = 0; p && gate < 3; ++gate)
      w[gate] = load_wide<float, kLanes>(p + gate * hidden + k, n);
    // As many pixels of a row of the tile as there are chains of operations under way.
    constexpr int M = kTogether;
    const auto weight = [&](int gate) {
      return [&, gate](int) __attribute__((always_inline)) { return w[gate]; };
    };
    for (int r = 0; r < 4 && at.y + r < a.shape.height; ++r) {
      for (int c = 0; c < 4 && at.x + c < a.shape.width; c += M) {
        const int64_t pixel = (at.item * a.shape.height + at.y + r) * a.shape.width + at.x + c;
        const int64_t inside = a.shape.width - at.x - c;
        // The numbers of a pixel outside do not matter: they are those of the first one.
        const auto place = [&](int m) { return pixel + (m < inside ? m : 0); };
        Cells<T, kLanes, M> cells;
        each<M>([&](int m) {
          cells.i[m] = y[0][r][c + m] + b[0], cells.f[m] = y[1][r][c + m] + b[1];
          cells.g[m] = y[2][r][c + m] + b[2], cells.o[m] = y[3][r][c + m] + b[3];
          const auto* const old = static_cast<const float*>(a.lstm.c) + place(m) * hidden + k;
          cells.c[m] = load_wide<float, kLanes>(old, n);
          if (!a.lstm.gates) return;
          const T* const more = static_cast<const T*>(a.lstm.gates) + place(m) * 4 * hidden + k;
          cells.i[m] += load_wide<T, kLanes>(more, n);
          cells.f[m] += load_wide<T, kLanes>(more + hidden, n);
          cells.g[m] += load_wide<T, kLanes>(more + 2 * hidden, n);
          cells.o[m] += load_wide<T, kLanes>(more + 3 * hidden, n);
        });
        cells.step(p, weight(0), weight(1), weight(2));
        for (int m = 0; m < M && m < inside; ++m) {
          const int64_t cell = (pixel + m) * hidden + k;
          store_wide<float, kLanes>(static_cast<float*>(a.lstm.c_out) + cell, cells.c[m], n);
          store_wide<T, kLanes>(static_cast<T*>(a.lstm.h) + cell, cells.h[m], n);
          if (!a.lstm.activated) continue;
          T* const to = static_cast<T*>(a.lstm.activated) + (pixel + m) * 4 * hidden + k;
          store_wide<T, kLanes>(to, cells.i[m], n);
          store_wide<T, kLanes>(to + hidden, cells.f[m], n);
          store_wide<T, kLanes>(to + 2 * hidden, cells.g[m], n);
          store_wide<T, kLanes>(to + 3 * hidden, cells.o[m], n);
        }
      }
    }
  }
}

// Tiles [begin, end), at most a.tiles of them, and blocks of columns [first, last).
template <class T>
void winograd(const cpu::WinogradArgs& a, float* workspace, int64_t begin, int64_t end,
              int64_t first, int64_t last) {
  int64_t inputs = 0;
  for (const auto& source : a.sources) inputs += source.channels;
  const int64_t count = end - begin, rows = (count + kRows - 1) / kRows * kRows;
  const int64_t v_plane = rows * inputs + kLanes, m_plane = rows * kColumns;
  float* const v = workspace;
  float* const m = workspace + 36 * v_plane;
  for (int64_t t = 0; t < count; ++t) {
    int64_t k = 0;
    for (const auto& source : a.sources) {
      if (source.channels)
        transform_tile(static_cast<const T*>(source.image), a.shape, source.channels,
                       tile_at(a.shape, begin + t), v + t * inputs + k, v_plane);
      k += source.channels;
    }
  }
  for (int e = 0; e < 36; ++e)
    __builtin_memset(v + e * v_plane + count * inputs, 0, (rows - count) * inputs * sizeof(float));
  for (int64_t block = first; block < last; ++block) {
    for (int e = 0; e < 36; ++e) {
      const float* const u = a.packed + (block * 36 + e) * kColumns * inputs;
      for (int64_t panel = 0; panel < kColumns / kPanel; ++panel)
        for (int64_t t = 0; t < rows; t += kRows)
          product(v + e * v_plane + t * inputs, inputs, u + panel * inputs * kPanel,
                  m + e * m_plane + t * kColumns + panel * kPanel);
    }
    for (int64_t t = 0; t < count; ++t) {
      const TileAt at = tile_at(a.shape, begin + t);
      if (a.lstm.h)
        finish_gates<T>(a, at, block, m + t * kColumns, m_plane);
      else
        finish_plain<T>(a, at, block, m + t * kColumns, m_plane);
    }
  }
}

}  // namespace amstel::AMSTEL_ISA

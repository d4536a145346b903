// The gradients of sum_c conj(S_c) N (S_c x), N = F^-1 M F, in x and in the sensitivities, fused
// around the Fourier transforms; torch-free. From the gradient g of the result:
//
//   grad_x = sum_c conj(S_c) N (S_c g)        grad_S_c = conj(g) N (S_c x) + conj(x) N (S_c g)
//
// Data flow.  Strips, masks and threads are those of mri.inl.h, for x and g side by side: both are
// read once, and of each coil the sensitivities are read and their gradients written once; with a
// mask of columns nothing else leaves the cache, else the k-space of one coil does, twice.
// Sensitivities that all images share have their gradients added up image by image, in order, by
// the thread that owns the strip.
#pragma once
#include "cpu/kernels/mri.inl.h"

namespace amstel::AMSTEL_ISA {

// The vectors of a thread: beside those of a Strip, g and the gradient of the sensitivities.
template <class S>
struct GradStrip : Strip<S> {
  using V = typename Strip<S>::V;
  using Strip<S>::a, Strip<S>::coil, Strip<S>::one, Strip<S>::two, Strip<S>::item;
  V *gradient, *maps;

  GradStrip(const cpu::MriArgs& args, void* scratch, int64_t strip)
      : Strip<S>(args, scratch, strip) {
    gradient = two + 2 * a.along_row.length;
    maps = gradient + 2 * a.width;
  }
  // x, and g times what the result was scaled by.
  void load_images() {
    this->load_image();
    load_strip(this->at(a.grad, item), 2 * a.width, this->rows, a.width, gradient);
    const S scale =
        static_cast<S>(a.factor * a.norm) * (a.scale ? static_cast<const S*>(a.scale)[item] : S(1));
    for (int64_t k = 0; k < 2 * a.width; ++k) gradient[k] *= scale;
  }
  // one = S v
  void expand(const V* v) {
    for (int64_t k = 0; k < 2 * a.width; k += 2) {
      one[k] = coil[k] * v[k] - coil[k + 1] * v[k + 1];
      one[k + 1] = coil[k] * v[k + 1] + coil[k + 1] * v[k];
    }
  }
  // maps = conj(v) z, or more by it
  void correlate(const V* v, const V* z, bool first) {
    for (int64_t k = 0; k < 2 * a.width; k += 2) {
      const V re = v[k] * z[k] + v[k + 1] * z[k + 1], im = v[k] * z[k + 1] - v[k + 1] * z[k];
      maps[k] = first ? re : maps[k] + re;
      maps[k + 1] = first ? im : maps[k + 1] + im;
    }
  }
  // To the gradient of the sensitivities, or on top of that of the images before.
  void store_maps(int64_t c) {
    const bool add = a.shared && item > 0;
    S* const to = const_cast<S*>(this->at(a.grad_maps, (a.shared ? 0 : item * a.coils) + c));
    if (add) {
      load_strip(to, 2 * a.width, this->rows, a.width, one);
      for (int64_t k = 0; k < 2 * a.width; ++k) maps[k] += one[k];
    }
    store_strip<S>(maps, to, nullptr, S(1), 2 * a.width, this->rows, a.width);
  }
  void store_sum() {
    if (a.out)
      store_strip<S>(this->sum, const_cast<S*>(this->at(a.out, item)), nullptr, S(1), 2 * a.width,
                     this->rows, a.width);
  }
};

// Strips [begin, end): of all images, or of each image where the sensitivities are shared.
template <class S>
void mri_columns_grad(const cpu::MriArgs& a, void* scratch, int64_t begin, int64_t end) {
  using V = Vector<S, kFftLanes<S>>;
  const S* const mask = static_cast<const S*>(a.mask);
  const int64_t strips = (a.height + kFftLanes<S> - 1) / kFftLanes<S>;
  for (int64_t number = begin; number < end; ++number)
    for (int64_t item = 0; item < (a.shared ? a.items : 1); ++item) {
      GradStrip<S> s(a, scratch, item * strips + number);
      // N S v, in one or two; a result times the norm comes of g alone, which has it.
      const auto normal = [&](const V* v) {
        s.expand(v);
        V* const k = fft<S>(a.along_row, false, s.one, s.two, s.one);
        for (int64_t i = 0; i < a.width; ++i) k[2 * i] *= mask[i], k[2 * i + 1] *= mask[i];
        return fft<S>(a.along_row, true, k, k == s.one ? s.two : s.one, k);
      };
      s.load_images();
      for (int64_t c = 0; c < a.coils; ++c) {
        s.load_coil(c);
        s.correlate(s.gradient, normal(s.image), true);
        const V* const back = normal(s.gradient);
        s.correlate(s.image, back, false);
        s.reduce(back, c == 0);
        s.store_maps(c);
      }
      s.store_sum();
    }
}

// The strips of one image for its coil number `coil`, as mri_strips; a.kspace has room for two,
// that of x and that of g, and a.sums for the sums over coils.
template <class S>
void mri_strips_grad(const cpu::MriArgs& a, void* scratch, int64_t item, int64_t coil,
                     int64_t begin, int64_t end) {
  constexpr int L = kFftLanes<S>;
  using V = Vector<S, L>;
  const int64_t strips = (a.height + L - 1) / L, kspace = (a.width + L - 1) / L * a.height * 2;
  for (int64_t number = begin; number < end; ++number) {
    GradStrip<S> s(a, scratch, item * strips + number);
    s.load_images();
    const V* const images[2] = {s.image, s.gradient};
    if (coil > 0) {
      s.load_coil(coil - 1);
      s.sum = static_cast<V*>(a.sums) + number * 2 * a.width;
      for (int which = 0; which < 2; ++which) {
        from_blocks<S>(a, static_cast<const V*>(a.kspace) + which * kspace, s.row, s.rows, s.one);
        const V* const back = fft<S>(a.along_row, true, s.one, s.two, s.one);
        s.correlate(images[1 - which], back, which == 0);
        if (which == 1) s.reduce(back, coil == 1);
      }
      s.store_maps(coil - 1);
      if (coil == a.coils) {
        s.store_sum();
        continue;
      }
    }
    s.load_coil(coil);
    for (int which = 0; which < 2; ++which) {
      s.expand(images[which]);
      to_blocks<S>(a, fft<S>(a.along_row, false, s.one, s.two, s.one), s.row, s.rows,
                   static_cast<V*>(a.kspace) + which * kspace);
    }
  }
}

}  // namespace amstel::AMSTEL_ISA

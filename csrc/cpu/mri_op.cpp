// The MRI operators on the CPU: check, allocate, run threads. The arithmetic is in
// kernels/mri.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <cmath>
#include <complex>
#include <vector>

#include "common/mri_check.h"
#include "common/rows.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

using Complex = std::complex<double>;

// e^(-2 pi i k / n)
Complex root(int64_t k, int64_t n) {
  const double turn = -2 * std::acos(-1.0);
  return std::polar(1.0, turn * static_cast<double>(k % n) / static_cast<double>(n));
}

// What is left of n without its prime factors up to `largest`.
int64_t rough(int64_t n, int64_t largest) {
  for (int64_t p = 2; p <= largest; ++p)
    while (n % p == 0) n /= p;
  return n;
}

// The Fourier transform of x, for tables: by the smallest prime factor of its length, which is at
// most 5 there.
std::vector<Complex> transformed(const std::vector<Complex>& x) {
  const auto n = static_cast<int64_t>(x.size());
  if (n == 1) return x;
  const int64_t radix = n % 2 == 0 ? 2 : n % 3 == 0 ? 3 : 5, part = n / radix;
  std::vector<Complex> out(n);
  for (int64_t r = 0; r < radix; ++r) {
    std::vector<Complex> every(part);
    for (int64_t k = 0; k < part; ++k) every[k] = x[radix * k + r];
    every = transformed(every);
    for (int64_t k = 0; k < n; ++k) out[k] += root(r * k, n) * every[k % part];
  }
  return out;
}

// Radices, twiddle factors, the cosines and sines of the larger primes, and chirps.
template <class S>
struct Plan {
  std::vector<S> twiddles, chirp, spectrum;
  std::vector<std::vector<S>> tables;
  FftPlan plan{};

  explicit Plan(int64_t n) {
    const double turn = 2 * std::acos(-1.0);
    plan.size = plan.length = n;
    if (rough(n, kMaxPrime) > 1) make_chirp();
    for (int64_t k = 0; k < plan.length; ++k) push(twiddles, root(k, plan.length));
    plan.twiddles = twiddles.data();
    int64_t left = plan.length;
    const auto take = [&](int64_t radix) {
      for (; left % radix == 0; left /= radix) {
        plan.radix[plan.stages] = radix;
        std::vector<S> table;
        if (radix > 5) {
          const int64_t half = (radix - 1) / 2;
          for (const bool sine : {false, true})
            for (int64_t k = 1; k <= half; ++k)
              for (int64_t j = 1; j <= half; ++j) {
                const double angle =
                    turn * static_cast<double>(j * k % radix) / static_cast<double>(radix);
                table.push_back(static_cast<S>(sine ? std::sin(angle) : std::cos(angle)));
              }
        }
        tables.push_back(std::move(table));
        plan.table[plan.stages++] = tables.back().data();
      }
    };
    take(4);
    for (int64_t radix = 2; radix <= kMaxPrime; ++radix) take(radix);
  }
  Plan(const Plan&) = delete;

  static void push(std::vector<S>& to, Complex z) {
    to.push_back(static_cast<S>(z.real()));
    to.push_back(static_cast<S>(z.imag()));
  }

  // The squares are taken modulo 2 n, or their angles would lose their digits.
  void make_chirp() {
    const int64_t n = plan.size;
    while (plan.length < 2 * n - 1 || rough(plan.length, 5) > 1) ++plan.length;
    std::vector<Complex> conjugate(plan.length);
    for (int64_t k = 0; k < n; ++k) {
      const Complex w = root(k * k, 2 * n);
      push(chirp, w);
      conjugate[k] = conjugate[k ? plan.length - k : 0] = std::conj(w);
    }
    for (const Complex z : transformed(conjugate))
      push(spectrum, z / static_cast<double>(plan.length));
    plan.chirp = chirp.data();
    plan.spectrum = spectrum.data();
  }
};

MriArgs shape_args(const MriShape& s) {
  MriArgs a{};
  a.items = s.items;
  a.coils = s.coils;
  a.height = s.height;
  a.width = s.width;
  a.shared = s.shared;
  a.factor = 1;
  return a;
}

// The result, or from a.grad the gradients of x and the sensitivities.
template <class S>
void run_normal(MriArgs a, const Tensor& like, int64_t table) {
  constexpr int64_t kVector = 64;  // bytes, at the most
  const int64_t lanes = kernels().vector_bytes / static_cast<int64_t>(sizeof(S));
  const Plan<S> row(a.width), column(a.columns ? 1 : a.height);
  a.along_row = row.plan;
  a.along_column = column.plan;
  a.norm = 1.0 / static_cast<double>(a.columns ? a.width : a.width * a.height);
  // Images that pass through k-space, and the strips and kernels for them.
  const int64_t images = a.grad ? 2 : 1;
  const auto columns = a.grad ? kernels().mri_columns_grad[table] : kernels().mri_columns[table];
  const auto rows = a.grad ? kernels().mri_strips_grad[table] : kernels().mri_strips[table];
  const int64_t strips = divide_up(a.height, lanes), blocks = divide_up(a.width, lanes);
  const int64_t work = images * a.coils * a.height * a.width * int64_t{sizeof(S)} * 16;
  const int64_t room =
      std::max((a.grad ? 10 : 6) * a.width + 4 * row.plan.length, 4 * column.plan.length) * lanes;
  const auto scratch_of = [&](int64_t parts, int64_t more) {
    return empty(like, {parts * room + more + kVector}, like.scalar_type());
  };
  if (a.columns) {
    const int64_t all = a.grad && a.shared ? strips : a.items * strips;
    const int64_t parts = std::min(all, threads_for(a.items * work));
    Tensor scratch = scratch_of(parts, 0);
    S* const rooms = mutable_data<S>(scratch);
    parallel_parts(parts, [&](int64_t p) {
      columns(a, rooms + p * room, all * p / parts, all * (p + 1) / parts);
    });
    return;
  }
  const int64_t parts = std::min({strips, blocks, threads_for(2 * work / a.coils)});
  const int64_t kspace = blocks * a.height * 2 * lanes, sums = strips * a.width * 2 * lanes;
  Tensor scratch = scratch_of(parts, images * kspace + sums);
  S* const rooms = mutable_data<S>(scratch);
  S* const spectra = rooms + parts * room;
  a.kspace = spectra;
  a.sums = spectra + images * kspace;
  for (int64_t item = 0; item < a.items; ++item)
    for (int64_t coil = 0; coil <= a.coils; ++coil) {
      parallel_parts(parts, [&](int64_t p) {
        rows(a, rooms + p * room, item, coil, strips * p / parts, strips * (p + 1) / parts);
      });
      if (coil == a.coils) break;
      parallel_parts(parts, [&](int64_t p) {
        MriArgs one = a;
        for (int64_t image = 0; image < images; ++image) {
          one.kspace = spectra + image * kspace;
          kernels().mri_blocks[table](one, rooms + p * room, item, blocks * p / parts,
                                      blocks * (p + 1) / parts);
        }
      });
    }
}

void run_normal(const MriArgs& a, const Tensor& like) {
  if (like.scalar_type() == ScalarType::Double)
    run_normal<double>(a, like, 0);
  else
    run_normal<float>(a, like, 1);
}

// The kernels for single operations come for double and float.
template <class Kernel>
void run(const Kernel* kernel, const MriArgs& a, const Tensor& like, int64_t tasks,
         int64_t numbers) {
  const int64_t parts =
      std::min(tasks, threads_for(numbers * static_cast<int64_t>(like.element_size())));
  const auto f = kernel[like.scalar_type() == ScalarType::Double ? 0 : 1];
  if (tasks)
    parallel_parts(parts, [&](int64_t p) { f(a, tasks * p / parts, tasks * (p + 1) / parts); });
}

}  // namespace

Tensor mri_normal(Tensor x, Tensor mask, OptionalTensor sensitivities, OptionalTensor minus,
                  OptionalTensor scale, double factor) {
  const char* op = "mri_normal";
  const auto [s, m] = check_normal(op, x, mask, sensitivities, minus, scale);
  Tensor out = empty(x, {s.items, s.height, s.width, 2});
  if (!out.numel()) return out;
  if (!s.coils) {  // a sum of nothing
    torch::stable::zero_(out);
    return out;
  }
  MriArgs a = shape_args(s);
  a.x = x.const_data_ptr();
  a.sensitivities = pointer(sensitivities);
  a.mask = mask.const_data_ptr();
  a.minus = pointer(minus);
  a.scale = pointer(scale);
  a.factor = factor;
  a.columns = m.columns;
  a.shared_mask = m.shared;
  a.out = out.mutable_data_ptr();
  run_normal(a, x);
  return out;
}

std::tuple<Tensor, Tensor> mri_normal_grad(Tensor grad, Tensor x, Tensor mask, Tensor sensitivities,
                                           OptionalTensor scale, double factor, bool need_x) {
  const char* op = "mri_normal_grad";
  check_complex(op, "x", x, 4);
  const int64_t items = x.size(0), height = x.size(1), width = x.size(2);
  const MriShape s = check_coils(op, x, sensitivities, items, height, width);
  check_complex_like(op, "grad", x, grad, {items, height, width, 2});
  check_scale(op, x, scale, items);
  const MaskShape m = check_mask(op, x, mask, s);
  Tensor grad_x = need_x ? empty(x, {items, height, width, 2}) : empty(x, {0});
  Tensor grad_maps = torch::stable::empty_like(sensitivities);
  if (!x.numel() || !s.coils) {  // sums of nothing
    if (need_x) torch::stable::zero_(grad_x);
    torch::stable::zero_(grad_maps);
    return {grad_x, grad_maps};
  }
  MriArgs a = shape_args(s);
  a.x = x.const_data_ptr();
  a.grad = grad.const_data_ptr();
  a.sensitivities = sensitivities.const_data_ptr();
  a.mask = mask.const_data_ptr();
  a.scale = pointer(scale);
  a.factor = factor;
  a.columns = m.columns;
  a.shared_mask = m.shared;
  a.out = need_x ? grad_x.mutable_data_ptr() : nullptr;
  a.grad_maps = grad_maps.mutable_data_ptr();
  run_normal(a, x);
  return {grad_x, grad_maps};
}

Tensor coil_expand(Tensor x, Tensor sensitivities) {
  const char* op = "coil_expand";
  check_complex(op, "x", x, 4);
  const MriShape s = check_coils(op, x, sensitivities, x.size(0), x.size(1), x.size(2));
  Tensor out = empty(x, {s.items, s.coils, s.height, s.width, 2});
  MriArgs a = shape_args(s);
  a.x = x.const_data_ptr();
  a.sensitivities = sensitivities.const_data_ptr();
  a.out = out.mutable_data_ptr();
  run(kernels().coil_expand, a, x, s.items * s.coils, out.numel());
  return out;
}

Tensor coil_reduce(Tensor images, Tensor sensitivities, OptionalTensor minus, OptionalTensor scale,
                   double factor) {
  const char* op = "coil_reduce";
  check_complex(op, "images", images, 5);
  const MriShape s =
      check_coils(op, images, sensitivities, images.size(0), images.size(2), images.size(3));
  check_complex_like(op, "images", images, images, {s.items, s.coils, s.height, s.width, 2});
  if (minus) check_complex_like(op, "minus", images, *minus, {s.items, s.height, s.width, 2});
  check_scale(op, images, scale, s.items);
  Tensor out = empty(images, {s.items, s.height, s.width, 2});
  MriArgs a = shape_args(s);
  a.x = images.const_data_ptr();
  a.sensitivities = sensitivities.const_data_ptr();
  a.minus = pointer(minus);
  a.scale = pointer(scale);
  a.factor = factor;
  a.out = out.mutable_data_ptr();
  run(kernels().coil_reduce, a, images, s.items * s.height, images.numel());
  return out;
}

void kspace_residual(Tensor k, Tensor mask, OptionalTensor minus, double factor) {
  const char* op = "kspace_residual";
  check_complex(op, "k", k, 5);
  const MriShape s{k.size(0), k.size(1), k.size(2), k.size(3), false};
  if (minus) check_complex_like(op, "minus", k, *minus, {s.items, s.coils, s.height, s.width, 2});
  const MaskShape m = check_mask(op, k, mask, s);
  MriArgs a = shape_args(s);
  a.minus = pointer(minus);
  a.mask = mask.const_data_ptr();
  a.factor = factor;
  a.columns = m.columns;
  a.shared_mask = m.shared;
  a.out = k.mutable_data_ptr();
  run(kernels().kspace_residual, a, k, s.items * s.coils * s.height, k.numel());
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("mri_normal", TORCH_BOX(&amstel::cpu::mri_normal));
  m.impl("mri_normal_grad", TORCH_BOX(&amstel::cpu::mri_normal_grad));
  m.impl("coil_expand", TORCH_BOX(&amstel::cpu::coil_expand));
  m.impl("coil_reduce", TORCH_BOX(&amstel::cpu::coil_reduce));
  m.impl("kspace_residual", TORCH_BOX(&amstel::cpu::kspace_residual));
}

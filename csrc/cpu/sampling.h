// What the samplers of graphs draw with and number nodes by; no torch in it.
//
// Every draw follows from a key and from what is drawn for (a node, a walk), and from nothing else:
// not from the thread, nor from the order of the draws.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace amstel::cpu {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), begun at a hash of key and counter.
class Random {
 public:
  Random(uint64_t key, uint64_t counter) : state_(mix(mix(key + kStep) ^ mix(counter * kStep))) {}
  uint64_t next() { return mix(state_ += kStep); }
  // In [0, n), n >= 1; the bias is below n / 2^64.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  // In (0, 1).
  double open() { return (static_cast<double>(next() >> 12) + 0.5) * 0x1p-52; }

 private:
  static constexpr uint64_t kStep = 0x9E3779B97F4A7C15;
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

// Draws from the slots [begin, begin + degree) of a row; one a thread, for the room it works in.
class Chooser {
 public:
  // `count` < degree of them without replacement, all sets equally likely (Floyd's algorithm).
  template <class I>
  void subset(Random& random, int64_t begin, int64_t degree, int64_t count, I* out) {
    if (count <= kFew && degree <= INT32_MAX) {
      int32_t few[kFew];
      for (int32_t m = 0; m < count; ++m) {
        const int32_t last = static_cast<int32_t>(degree - count + m);
        int32_t drawn = static_cast<int32_t>(random.below(last + 1));
        bool seen = false;  // without a branch inside, the compiler vectorizes
        for (int32_t j = 0; j < m; ++j) seen |= few[j] == drawn;
        drawn = seen ? last : drawn;
        few[m] = drawn;
        out[m] = static_cast<I>(begin + drawn);
      }
      return;
    }
    if (static_cast<int64_t>(marks_.size()) < degree / 64 + 1) marks_.resize(degree / 64 + 1);
    for (int64_t m = 0; m < count; ++m) {
      const int64_t last = degree - count + m;
      int64_t drawn = static_cast<int64_t>(random.below(last + 1));
      if (marks_[drawn / 64] >> (drawn % 64) & 1) drawn = last;
      marks_[drawn / 64] |= uint64_t{1} << (drawn % 64);
      out[m] = static_cast<I>(begin + drawn);
    }
    for (int64_t m = 0; m < count; ++m) marks_[(out[m] - begin) / 64] = 0;
  }

  // `count` of them with replacement, slot k with a probability proportional to chance[k], one of
  // which is positive; scale = 1 / (count * probability).
  template <class I>
  void weighted(Random& random, const float* chance, int64_t begin, int64_t degree, int64_t count,
                I* out, double* scale) {
    sums_.resize(degree);
    double sum = 0;
    for (int64_t k = 0; k < degree; ++k) sums_[k] = sum += chance[begin + k];
    for (int64_t m = 0; m < count; ++m) {
      const double at = random.open() * sum;
      int64_t k = std::upper_bound(sums_.begin(), sums_.end(), at) - sums_.begin();
      if (k == degree) --k;                // `at` was rounded up to the sum
      while (chance[begin + k] == 0) --k;  // only then can this be so
      out[m] = static_cast<I>(begin + k);
      scale[m] = sum / (static_cast<double>(count) * chance[begin + k]);
    }
  }

  // `count` of the slots with a positive chance, fewer than all, one after the other without
  // replacement: those of the smallest ranks -log(u) / chance (Efraimidis and Spirakis, Information
  // Processing Letters 97, 2006). A slot is among them, given the ranks of the others, with
  // probability 1 - exp(-chance t), t being the next smallest rank: scale is its inverse, which
  // makes every sum unbiased (Cohen and Kaplan, PODC 2007).
  template <class I>
  void weighted_subset(Random& random, const float* chance, int64_t begin, int64_t degree,
                       int64_t count, I* out, double* scale) {
    ranks_.clear();
    for (int64_t k = 0; k < degree; ++k) {
      const double drawn = -std::log(random.open());
      if (chance[begin + k] > 0) ranks_.emplace_back(drawn / chance[begin + k], k);
    }
    std::nth_element(ranks_.begin(), ranks_.begin() + count, ranks_.end());
    const double next = ranks_[count].first;
    std::sort(ranks_.begin(), ranks_.begin() + count,
              [](const auto& a, const auto& b) { return a.second < b.second; });
    for (int64_t m = 0; m < count; ++m) {
      out[m] = static_cast<I>(begin + ranks_[m].second);
      scale[m] = -1 / std::expm1(-next * chance[out[m]]);
    }
  }

 private:
  static constexpr int64_t kFew = 64;
  std::vector<uint64_t> marks_;  // zeros between the calls
  std::vector<double> sums_;
  std::vector<std::pair<double, int64_t>> ranks_;
};

// Numbers nodes in the order in which they are named: a hash table of the size of what it holds,
// however large the graph is.
template <class I>
class Numbers {
 public:
  explicit Numbers(int64_t most) {
    while ((int64_t{1} << bits_) < most + most / 2) ++bits_;
    entries_.reset(new Entry[size_t{1} << bits_]);
    std::memset(static_cast<void*>(entries_.get()), 0xff, sizeof(Entry) << bits_);  // node = -1
  }
  int64_t size() const { return size_; }
  void prefetch(I node) const { __builtin_prefetch(&entries_[place(node)], 1); }
  // The number of a node, a new one if it has none.
  I add(I node) {
    Entry* entry = look(node);
    if (entry->node != node) *entry = {node, static_cast<I>(size_++)};
    return entry->number;
  }
  // The number of a node, or -1.
  I find(I node) const { return look(node)->number; }

 private:
  struct Entry {
    I node, number;
  };
  uint64_t place(I node) const {
    return (static_cast<uint64_t>(node) * 0x9E3779B97F4A7C15) >> (64 - bits_);
  }
  Entry* look(I node) const {
    const uint64_t mask = (uint64_t{1} << bits_) - 1;
    uint64_t k = place(node);
    while (entries_[k].node != node && entries_[k].node != -1) k = (k + 1) & mask;
    return &entries_[k];
  }
  int bits_ = 4;
  int64_t size_ = 0;
  std::unique_ptr<Entry[]> entries_;
};

}  // namespace amstel::cpu

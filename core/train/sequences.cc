#include "core/train/sequences.h"

#include "core/base/check.h"
#include "core/base/rng.h"

namespace nibble::train {
namespace {

uint64_t Mix(uint64_t value) { return Rng(value).Next(); }

}  // namespace

void Sequences::Add(absl::Span<const int32_t> tokens, absl::Span<const uint8_t> learned) {
  NIBBLE_CHECK(!tokens.empty() && tokens.size() == learned.size());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  const size_t first = learned_.size();
  learned_.insert(learned_.end(), learned.begin(), learned.end());
  learned_[first] = 0;
  starts_.push_back(static_cast<int64_t>(tokens_.size()));
}

void Sequences::Add(absl::Span<const int32_t> tokens) { Add(tokens, std::vector<uint8_t>(tokens.size(), 1)); }

void Sequences::AddWindows(absl::Span<const int32_t> stream, int64_t window) {
  NIBBLE_CHECK(window > 1);
  for (size_t first = 0; first + window <= stream.size(); first += window) Add(stream.subspan(first, window));
}

// A Feistel network over the next even power of two, walked until it lands
// inside [0, count): a permutation that needs no table (Black & Rogaway,
// "Ciphers with Arbitrary Finite Domains", 2002).
int64_t ShuffledIndex(int64_t position, int64_t count, uint64_t seed) {
  NIBBLE_CHECK(position >= 0 && count > 0);
  const uint64_t key = Mix(seed ^ Mix(static_cast<uint64_t>(position / count)));
  int half = 1;
  while ((int64_t{1} << (2 * half)) < count) ++half;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  uint64_t x = static_cast<uint64_t>(position % count);
  do {
    uint64_t left = x >> half, right = x & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (Mix(key + round * 0x9E3779B97F4A7C15ull + right) & mask);
      left = right;
      right = next;
    }
    x = left << half | right;
  } while (x >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(x);
}

}  // namespace nibble::train

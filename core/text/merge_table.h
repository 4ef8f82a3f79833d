// The merges of byte-pair encoding: which two neighbouring tokens become one, and
// which pair goes first.
#ifndef NIBBLE_CORE_TEXT_MERGE_TABLE_H_
#define NIBBLE_CORE_TEXT_MERGE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace nibble::text {

class MergeTable {
 public:
  void Reserve(size_t count) { merges_.reserve(count); }

  // `left` followed by `right` becomes `result`. False, and no change, when the
  // pair is already there.
  bool Add(int32_t left, int32_t right, int32_t rank, int32_t result);

  // Merges the pair of the lowest rank, the leftmost of equals, until no pair of
  // neighbours is in the table. O(n log n) for n symbols.
  void Apply(std::vector<int32_t>* symbols) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };
  class Run;

  static uint64_t Key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_MERGE_TABLE_H_

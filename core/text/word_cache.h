// Words of one text that were already encoded: a natural text repeats most of its
// words, so looking them up saves nearly all merging.
#ifndef NIBBLE_CORE_TEXT_WORD_CACHE_H_
#define NIBBLE_CORE_TEXT_WORD_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace nibble::text {

// Appends ids to `ids`; remembers a word by where its ids are in there. The words
// must outlive the cache.
class WordCache {
 public:
  explicit WordCache(std::vector<int32_t>* ids) : ids_(*ids) {}

  // Appends the ids of `word`; at its first occurrence by calling `encode`, which
  // appends them.
  void Append(absl::string_view word, absl::FunctionRef<void(absl::string_view)> encode) {
    const auto [it, is_new] = ranges_.try_emplace(word);
    if (is_new) {
      it->second.begin = ids_.size();
      encode(word);
      it->second.end = ids_.size();
    } else {
      for (size_t i = it->second.begin; i < it->second.end; ++i) ids_.push_back(ids_[i]);
    }
  }

 private:
  struct Range {
    size_t begin = 0;
    size_t end = 0;
  };
  std::vector<int32_t>& ids_;
  absl::flat_hash_map<absl::string_view, Range> ranges_;
};

}  // namespace nibble::text

#endif  // NIBBLE_CORE_TEXT_WORD_CACHE_H_

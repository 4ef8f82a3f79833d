// The nearest codeword, the inner loop of everything about codebooks: k-means,
// encoding, beam search. Portable C++ on the compiler's vectors, compiled for
// several instruction sets and chosen at run time; without contracted
// multiply-adds, so all give the same codes.
#ifndef NIBBLE_CORE_QUANT_FORMATS_AQLM_NEAREST_H_
#define NIBBLE_CORE_QUANT_FORMATS_AQLM_NEAREST_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace nibble::additive {

// Codewords [words, dim] with words side by side: [dim][stride], the stride a
// multiple of kLanes; what lies beyond `words` is never chosen.
class WordTable {
 public:
  static constexpr int64_t kLanes = 16;

  WordTable(absl::Span<const float> words, int64_t dim);

  int64_t words() const { return words_; }
  int64_t dim() const { return dim_; }
  int64_t stride() const { return stride_; }
  const float* data() const { return values_.data(); }

  // bias(word) for every word, in the length and padding that NearestWords needs.
  template <typename Bias>
  std::vector<float> BiasOf(const Bias& bias) const {
    std::vector<float> biases = NoBias();
    for (int64_t word = 0; word < words_; ++word) biases[word] = bias(word);
    return biases;
  }

 private:
  std::vector<float> NoBias() const;

  int64_t words_, dim_, stride_;
  std::vector<float> values_;
};

// For each of `count` queries x_i [count, dim]: the word that minimizes factor[i] *
// bias[word] - x_i . word, the first of equals, and that minimum; factor[i] >= 0. With factor 1 and
// bias |word|^2 / 2 it is the nearest word.
void NearestWords(const WordTable& table, const float* bias, int64_t count, const float* factor, const float* x, uint16_t* words, float* values);

// All of them for one query: [words].
void WordValues(const WordTable& table, const float* bias, float factor, const float* x, float* values);

}  // namespace nibble::additive

#endif  // NIBBLE_CORE_QUANT_FORMATS_AQLM_NEAREST_H_

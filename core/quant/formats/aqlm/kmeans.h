// K-means over short vectors.
#ifndef NIBBLE_CORE_QUANT_FORMATS_AQLM_KMEANS_H_
#define NIBBLE_CORE_QUANT_FORMATS_AQLM_KMEANS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "core/base/thread_pool.h"

namespace nibble::additive {

struct KMeansOptions {
  int64_t words = 256;
  int iterations = 100;      // of Lloyd's algorithm, at most
  double tolerance = 1e-4;   // ends where an iteration gains less than this share
  // Vectors beyond this many for each word are not trained on; a sample is.
  int64_t vectors_per_word = 256;
  uint64_t seed = 0;
};

// Centroids [words, dim] of vectors [n, dim]. Starts from vectors chosen by their
// distances to those before (k-means++, Arthur & Vassilvitskii, SODA 2007), or beyond
// 1024 words from vectors chosen at random; a word that no vector is nearest to moves
// to the vector that is worst off. Where words are enough for every distinct vector
// they are those vectors, and zeros. The same for any number of threads; `pool` may
// be null.
std::vector<float> KMeans(absl::Span<const float> vectors, int64_t dim, const KMeansOptions& options, ThreadPool* pool);

// The nearest word of each vector, and the squared distance to it.
struct Assignment {
  std::vector<uint16_t> words;
  std::vector<float> distances;
};
Assignment AssignNearest(absl::Span<const float> vectors, int64_t dim, absl::Span<const float> words, ThreadPool* pool);

}  // namespace nibble::additive

#endif  // NIBBLE_CORE_QUANT_FORMATS_AQLM_KMEANS_H_

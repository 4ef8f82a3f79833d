// Searches for the scale (and offset) of a few values and small codes, by weighted
// squares: what the encoders of GGUF's blocks are made of. Each keeps the candidate
// of least error, or of equal error the first, in a fixed order of fp32 operations,
// so results are the same everywhere. Groups of values are searched side by side, one
// in each lane of a vector.
//
// Source: the fits in ggml's ggml-quants.c (llama.cpp; trials from both ends as in
// ik_llama.cpp).
#ifndef NIBBLE_CORE_QUANT_FORMATS_GGUF_FIT_H_
#define NIBBLE_CORE_QUANT_FORMATS_GGUF_FIT_H_

#include <cstdint>

#include "absl/types/span.h"

namespace nibble::gguf {

// Groups whose magnitudes are all below this count as zero.
inline constexpr float kLeastMagnitude = 1e-15f;

inline constexpr int64_t kLanes = 8;
inline constexpr int64_t kLargestGroup = 32;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// kLanes groups of n <= kLargestGroup values, and the weights of their squared errors.
struct Groups {
  int64_t n;
  const Lanes* x;
  const Lanes* weights;
};

// The integer nearest to x in [low, high], ties to even; low where x is no number.
int NearestIn(float x, int low, int high);

// codes[i] in [0, max_code] with scale (codes[i] - zero) nearest to x[i] + offset; zero where
// the scale is 0. x.size() is a multiple of kLanes.
void NearestCodes(float scale, float offset, int zero, int max_code, absl::Span<const float> x, uint8_t* codes);

// The value of the largest magnitude, the first of equals.
float SignedAbsMax(absl::Span<const float> x);

// The scales of x ~ scale code, codes in [-levels, levels - 1], that least squares gives
// for the best of 19 trial scales around each that maps SignedAbsMax to an end of the
// codes, and then with codes improved one at a time for at most five rounds. `codes` [n].
void FitSymmetric(int levels, const Groups& groups, Lanes* scales, Lanes* codes);

// The same from the one scale that maps SignedAbsMax to -levels, codes improved only
// where the scale is positive.
void FitSymmetricByDescent(int levels, const Groups& groups, Lanes* scales, Lanes* codes);

// Trial scales (max_code + first + i step) / (max x - min), i = 0 .. steps, from the least
// of x and 0 as the offset, then from that of the best fit so far.
struct AffineSearch {
  float first, step;
  int steps;
  bool absolute = false;  // errors are magnitudes, not squares
};

// x ~ scale code - min with min >= 0, `codes` [n] in [0, max_code].
void FitAffine(int max_code, const Groups& groups, const AffineSearch& search, Lanes* scales, Lanes* mins, Lanes* codes);

// The scale of x ~ scale code for x >= 0, `codes` [n] in [0, max_code].
void FitPositive(int max_code, const Groups& groups, Lanes* scales, Lanes* codes);

// The scale of x ~ scale table[code] for iq4_nl's table: the best of 15 around each that
// maps SignedAbsMax to an end of the table.
float FitNonLinear(absl::Span<const float> x, absl::Span<const float> weights);

// The code of iq4_nl's entry nearest to x; half-way the greater.
uint8_t NearestNonLinear(float x);

}  // namespace nibble::gguf

#endif  // NIBBLE_CORE_QUANT_FORMATS_GGUF_FIT_H_

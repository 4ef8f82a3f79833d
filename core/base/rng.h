// A small seeded random generator whose numbers are the same on every machine
// (std:: distributions are not). SplitMix64: Steele, Lea, Flood, "Fast
// Splittable Pseudorandom Number Generators", OOPSLA 2014.
#ifndef NIBBLE_CORE_BASE_RNG_H_
#define NIBBLE_CORE_BASE_RNG_H_

#include <cstdint>

namespace nibble {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }

  // Uniform in [0, 1), a multiple of 2^-53.
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1.0p-53; }

  // Uniform in [0, n); the bias of the modulus is below n * 2^-64.
  uint64_t Below(uint64_t n) { return Next() % n; }

  // Approximately standard normal: the sum of twelve uniforms less six, drawn
  // from three words of four 16-bit fields. Only +, -, * are used, so that the
  // value does not depend on a math library.
  float Normal() {
    uint32_t sum = 0;
    for (int i = 0; i < 3; ++i) {
      const uint64_t word = Next();
      sum += (word & 0xFFFF) + ((word >> 16) & 0xFFFF) + ((word >> 32) & 0xFFFF) + (word >> 48);
    }
    return static_cast<float>(sum) * 0x1.0p-16f - (6.0f - 6.0f * 0x1.0p-16f);
  }

 private:
  uint64_t state_;
};

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_RNG_H_

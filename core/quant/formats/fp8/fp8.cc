// fp8_e4m3 and fp8_e5m2: 8-bit floats (Micikevicius et al., FP8 Formats for Deep
// Learning, 2022; e4m3 without infinities, "fn"), scaled so that the largest
// magnitude is the largest number. Rounds to nearest, ties to even; what is beyond
// the largest number becomes it, so that infinities and NaN are never chosen.

#include <cmath>
#include <limits>

#include "core/quant/integer_grid.h"
#include "core/quant/table_format.h"

namespace nibble {
namespace {

struct Layout8 {
  int fraction;        // bits
  int bias;            // of the exponent
  uint8_t top;         // code of the largest number; those above it are no numbers
  bool has_infinity;   // the code after top; the others above it are NaN

  int least() const { return 1 - bias; }  // exponent of the least normal number

  // What a code without its sign stands for.
  float Magnitude(int code) const {
    if (code > top) return has_infinity && code == top + 1 ? std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
    const int exponent = code >> fraction, part = code & ((1 << fraction) - 1);
    return exponent == 0 ? std::ldexp(static_cast<float>(part), least() - fraction)
                         : std::ldexp(static_cast<float>((1 << fraction) + part), exponent - bias - fraction);
  }

  float Value(uint8_t code) const { return code & 0x80 ? -Magnitude(code & 0x7F) : Magnitude(code); }

  std::vector<float> Table() const {
    std::vector<float> values(256);
    for (int code = 0; code < 256; ++code) values[code] = Value(static_cast<uint8_t>(code));
    return values;
  }
};

constexpr Layout8 kE4m3 = {3, 7, 0x7E, false}, kE5m2 = {2, 15, 0x7B, true};

class Fp8Format : public TableFormat {
 public:
  Fp8Format(std::string name, const Layout8& layout)
      : TableFormat(std::move(name), 8, layout.Table(), layout.Value(layout.top)), layout_(layout) {}

  std::vector<QuantScheme> ExampleSchemes() const override {
    std::vector<QuantScheme> schemes(3);
    for (QuantScheme& scheme : schemes) scheme.set_format(name());
    schemes[0].set_per(QuantScheme::PER_TENSOR);
    schemes[1].set_per(QuantScheme::PER_ROW);
    schemes[2].set_per(QuantScheme::PER_GROUP);
    schemes[2].set_group_size(128);
    return schemes;
  }

 protected:
  uint8_t Nearest(float x) const override {
    const float magnitude = std::fabs(x);
    const uint8_t sign = std::signbit(x) ? 0x80 : 0;
    if (magnitude >= largest()) return sign | layout_.top;
    const int exponent = magnitude == 0 ? layout_.least() : std::max(layout_.least(), std::ilogb(magnitude));
    // In units of the last place, 0 to 2^(fraction + 1): the codes of one exponent
    // follow those of the one below.
    const float units = RoundHalfEven(std::ldexp(magnitude, layout_.fraction - exponent));
    return sign | static_cast<uint8_t>(((exponent - layout_.least()) << layout_.fraction) + static_cast<int>(units));
  }

 private:
  const Layout8 layout_;
};

const FormatRegistrar kFp8E4m3(std::make_unique<Fp8Format>("fp8_e4m3", kE4m3));
const FormatRegistrar kFp8E5m2(std::make_unique<Fp8Format>("fp8_e5m2", kE5m2));

}  // namespace
}  // namespace nibble

#include "core/io/gguf_blocks.h"

#include <cstring>

namespace nibble::io {
namespace {

constexpr int64_t kHalf = 16;  // elements in the low nibbles

template <typename T>
T Read(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

float ReadHalf(const uint8_t* p) { return Fp16ToFloat(Read<uint16_t>(p)); }

void DecodeF32(const uint8_t* in, int64_t count, float* out) { std::memcpy(out, in, count * sizeof(float)); }

void DecodeF16(const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = ReadHalf(in + 2 * i);
}

void DecodeBf16(const uint8_t* in, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = Bf16ToFloat(Read<uint16_t>(in + 2 * i));
}

void DecodeQ4_0(const uint8_t* in, int64_t count, float* out) {
  for (; count > 0; --count, in += 18, out += 2 * kHalf) {
    const float d = ReadHalf(in);
    for (int64_t j = 0; j < kHalf; ++j) {
      const int byte = in[2 + j];
      out[j] = static_cast<float>((byte & 15) - 8) * d;
      out[j + kHalf] = static_cast<float>((byte >> 4) - 8) * d;
    }
  }
}

void DecodeQ4_1(const uint8_t* in, int64_t count, float* out) {
  for (; count > 0; --count, in += 20, out += 2 * kHalf) {
    const float d = ReadHalf(in), m = ReadHalf(in + 2);
    for (int64_t j = 0; j < kHalf; ++j) {
      const int byte = in[4 + j];
      out[j] = static_cast<float>(byte & 15) * d + m;
      out[j + kHalf] = static_cast<float>(byte >> 4) * d + m;
    }
  }
}

// Element j's five bits.
int FiveBits(const uint8_t* nibbles, uint32_t high, int64_t j) {
  const int low = j < kHalf ? nibbles[j] & 15 : nibbles[j - kHalf] >> 4;
  return low | static_cast<int>((high >> j & 1u) << 4);
}

void DecodeQ5_0(const uint8_t* in, int64_t count, float* out) {
  for (; count > 0; --count, in += 22, out += 2 * kHalf) {
    const float d = ReadHalf(in);
    const uint32_t high = Read<uint32_t>(in + 2);
    for (int64_t j = 0; j < 2 * kHalf; ++j) out[j] = static_cast<float>(FiveBits(in + 6, high, j) - 16) * d;
  }
}

void DecodeQ5_1(const uint8_t* in, int64_t count, float* out) {
  for (; count > 0; --count, in += 24, out += 2 * kHalf) {
    const float d = ReadHalf(in), m = ReadHalf(in + 2);
    const uint32_t high = Read<uint32_t>(in + 4);
    for (int64_t j = 0; j < 2 * kHalf; ++j) out[j] = static_cast<float>(FiveBits(in + 8, high, j)) * d + m;
  }
}

void DecodeQ8_0(const uint8_t* in, int64_t count, float* out) {
  for (; count > 0; --count, in += 34, out += 2 * kHalf) {
    const float d = ReadHalf(in);
    for (int64_t j = 0; j < 2 * kHalf; ++j) out[j] = static_cast<float>(static_cast<int8_t>(in[2 + j])) * d;
  }
}

// The numbers are the file format's; the gaps are types that it has dropped.
const GgufBlockType kTypes[] = {
    {0, "F32", 1, 4, DType::kF32, DecodeF32},
    {1, "F16", 1, 2, DType::kF16, DecodeF16},
    {2, "Q4_0", 32, 18, std::nullopt, DecodeQ4_0},
    {3, "Q4_1", 32, 20, std::nullopt, DecodeQ4_1},
    {6, "Q5_0", 32, 22, std::nullopt, DecodeQ5_0},
    {7, "Q5_1", 32, 24, std::nullopt, DecodeQ5_1},
    {8, "Q8_0", 32, 34, std::nullopt, DecodeQ8_0},
    {9, "Q8_1", 32, 36, std::nullopt, nullptr},
    {10, "Q2_K", 256, 84, std::nullopt, nullptr},
    {11, "Q3_K", 256, 110, std::nullopt, nullptr},
    {12, "Q4_K", 256, 144, std::nullopt, nullptr},
    {13, "Q5_K", 256, 176, std::nullopt, nullptr},
    {14, "Q6_K", 256, 210, std::nullopt, nullptr},
    {15, "Q8_K", 256, 292, std::nullopt, nullptr},
    {16, "IQ2_XXS", 256, 66, std::nullopt, nullptr},
    {17, "IQ2_XS", 256, 74, std::nullopt, nullptr},
    {18, "IQ3_XXS", 256, 98, std::nullopt, nullptr},
    {19, "IQ1_S", 256, 50, std::nullopt, nullptr},
    {20, "IQ4_NL", 32, 18, std::nullopt, nullptr},
    {21, "IQ3_S", 256, 110, std::nullopt, nullptr},
    {22, "IQ2_S", 256, 82, std::nullopt, nullptr},
    {23, "IQ4_XS", 256, 136, std::nullopt, nullptr},
    {24, "I8", 1, 1, std::nullopt, nullptr},
    {25, "I16", 1, 2, std::nullopt, nullptr},
    {26, "I32", 1, 4, std::nullopt, nullptr},
    {27, "I64", 1, 8, std::nullopt, nullptr},
    {28, "F64", 1, 8, std::nullopt, nullptr},
    {29, "IQ1_M", 256, 56, std::nullopt, nullptr},
    {30, "BF16", 1, 2, DType::kBF16, DecodeBf16},
    {34, "TQ1_0", 256, 54, std::nullopt, nullptr},
    {35, "TQ2_0", 256, 66, std::nullopt, nullptr},
    {39, "MXFP4", 32, 17, std::nullopt, nullptr},
};

}  // namespace

const GgufBlockType* FindGgufBlockType(uint32_t id) {
  for (const GgufBlockType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

const GgufBlockType* FindGgufBlockType(absl::string_view name) {
  for (const GgufBlockType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

}  // namespace nibble::io

#include "core/quant/formats/gguf/blocks.h"

#include <cstring>

#include "core/tensor/half.h"

namespace nibble::gguf {
namespace {

// Fields of a block one after the other.
class FieldReader {
 public:
  explicit FieldReader(const uint8_t* block) : at_(block) {}
  float Half() {
    uint16_t bits;
    std::memcpy(&bits, Bytes(sizeof(bits)), sizeof(bits));
    return Fp16ToFloat(bits);
  }
  const uint8_t* Bytes(int64_t count) {
    const uint8_t* bytes = at_;
    at_ += count;
    return bytes;
  }

 private:
  const uint8_t* at_;
};

class FieldWriter {
 public:
  explicit FieldWriter(uint8_t* block) : at_(block) {}
  void Half(float value) {
    const uint16_t bits = FloatToFp16(value);
    std::memcpy(Bytes(sizeof(bits)), &bits, sizeof(bits));
  }
  // Zeroed.
  uint8_t* Bytes(int64_t count) {
    uint8_t* bytes = at_;
    std::memset(bytes, 0, count);
    at_ += count;
    return bytes;
  }

 private:
  uint8_t* at_;
};

// Where the `bits`-bit field of column i lies in a run of bytes: columns come in
// chunks, a chunk's first `stride` columns take the lowest bits of `stride` bytes, the
// next `stride` the bits above, and so on.
struct Spread {
  int bits;
  int64_t stride;

  int64_t per_chunk() const { return stride * 8 / bits; }
  int64_t Byte(int64_t i) const { return i / per_chunk() * stride + i % stride; }
  int Shift(int64_t i) const { return static_cast<int>(i % per_chunk() / stride) * bits; }
  uint8_t Get(const uint8_t* bytes, int64_t i) const { return bytes[Byte(i)] >> Shift(i) & ((1 << bits) - 1); }
  void Put(uint8_t value, int64_t i, uint8_t* bytes) const { bytes[Byte(i)] |= static_cast<uint8_t>(value << Shift(i)); }
};

constexpr Spread kNibbles16{4, 16}, kNibbles32{4, 32}, kNibbles64{4, 64}, kPairs32{2, 32};
// Single bits: of 32 columns in a little-endian u32, of 256 in 32 bytes.
constexpr Spread kBits1{1, 1}, kBits32{1, 32};

// Adds to codes [0, count) the field `spread` in `bytes`, `shift` bits up.
void AddField(const Spread& spread, const uint8_t* bytes, int64_t count, int shift, BlockParts* parts) {
  for (int64_t i = 0; i < count; ++i) parts->codes[i] |= static_cast<uint8_t>(spread.Get(bytes, i) << shift);
}

// Puts the bits of codes [0, count) from `shift` up.
void PutField(const Spread& spread, const BlockParts& parts, int64_t count, int shift, uint8_t* bytes) {
  const uint8_t mask = static_cast<uint8_t>((1 << spread.bits) - 1);
  for (int64_t i = 0; i < count; ++i) spread.Put(parts.codes[i] >> shift & mask, i, bytes);
}

constexpr int64_t kSmall = 32, kLarge = kLargestBlock;

// q4_0, q4_1, q5_0, q5_1, iq4_nl.
template <bool kMin, bool kFifth>
void UnpackSmall(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  parts->d = in.Half();
  parts->m = kMin ? -in.Half() : 0.0f;
  parts->scales[0] = 1;
  parts->mins[0] = 1;
  std::memset(parts->codes.data(), 0, kSmall);
  if (kFifth) AddField(kBits1, in.Bytes(4), kSmall, 4, parts);
  AddField(kNibbles16, in.Bytes(16), kSmall, 0, parts);
}

template <bool kMin, bool kFifth>
void PackSmall(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  out.Half(parts.d);
  if (kMin) out.Half(-parts.m);
  if (kFifth) PutField(kBits1, parts, kSmall, 4, out.Bytes(4));
  PutField(kNibbles16, parts, kSmall, 0, out.Bytes(16));
}

constexpr int kQ8Zero = 128;

void UnpackQ8_0(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  parts->d = in.Half();
  parts->m = 0;
  parts->scales[0] = 1;
  parts->mins[0] = 1;
  const uint8_t* codes = in.Bytes(kSmall);
  for (int64_t i = 0; i < kSmall; ++i) parts->codes[i] = codes[i] ^ kQ8Zero;  // int8 + 128
}

void PackQ8_0(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  out.Half(parts.d);
  uint8_t* codes = out.Bytes(kSmall);
  for (int64_t i = 0; i < kSmall; ++i) codes[i] = parts.codes[i] ^ kQ8Zero;
}

void UnpackQ2K(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  const uint8_t* scales = in.Bytes(16);
  for (int s = 0; s < 16; ++s) {
    parts->scales[s] = static_cast<int8_t>(scales[s] & 15);
    parts->mins[s] = scales[s] >> 4;
  }
  std::memset(parts->codes.data(), 0, kLarge);
  AddField(kPairs32, in.Bytes(64), kLarge, 0, parts);
  parts->d = in.Half();
  parts->m = in.Half();
}

void PackQ2K(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  uint8_t* scales = out.Bytes(16);
  for (int s = 0; s < 16; ++s) scales[s] = static_cast<uint8_t>(parts.scales[s] | parts.mins[s] << 4);
  PutField(kPairs32, parts, kLarge, 0, out.Bytes(64));
  out.Half(parts.d);
  out.Half(parts.m);
}

// 16 scales of 6 bits: the low nibbles of scales s and s + 8 share byte s, the top
// pairs of scales s, s + 4, s + 8, s + 12 share byte 8 + s. Stored plus 32.
constexpr Spread kScaleNibbles{4, 8}, kScalePairs{2, 4};

void UnpackQ3K(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  std::memset(parts->codes.data(), 0, kLarge);
  AddField(kBits32, in.Bytes(32), kLarge, 2, parts);
  AddField(kPairs32, in.Bytes(64), kLarge, 0, parts);
  const uint8_t* scales = in.Bytes(12);
  for (int s = 0; s < 16; ++s) {
    parts->scales[s] = static_cast<int8_t>((kScaleNibbles.Get(scales, s) | kScalePairs.Get(scales + 8, s) << 4) - 32);
    parts->mins[s] = 0;
  }
  parts->d = in.Half();
  parts->m = 0;
}

void PackQ3K(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  PutField(kBits32, parts, kLarge, 2, out.Bytes(32));
  PutField(kPairs32, parts, kLarge, 0, out.Bytes(64));
  uint8_t* scales = out.Bytes(12);
  for (int s = 0; s < 16; ++s) {
    const int stored = parts.scales[s] + 32;
    kScaleNibbles.Put(stored & 15, s, scales);
    kScalePairs.Put(static_cast<uint8_t>(stored >> 4), s, scales + 8);
  }
  out.Half(parts.d);
}

// Eight scales and eight mins of 6 bits: the first four of each in the low bits of
// bytes 0-3 and 4-7, whose top pairs complete the last four, the nibbles of which are
// in bytes 8-11, scales low and mins high.
void UnpackScalesAndMins(const uint8_t* bytes, BlockParts* parts) {
  for (int s = 0; s < 4; ++s) {
    parts->scales[s] = static_cast<int8_t>(bytes[s] & 63);
    parts->mins[s] = bytes[s + 4] & 63;
    parts->scales[s + 4] = static_cast<int8_t>((bytes[s + 8] & 15) | (bytes[s] >> 6) << 4);
    parts->mins[s + 4] = static_cast<uint8_t>(bytes[s + 8] >> 4 | (bytes[s + 4] >> 6) << 4);
  }
}

void PackScalesAndMins(const BlockParts& parts, uint8_t* bytes) {
  for (int s = 0; s < 4; ++s) {
    const int scale = parts.scales[s + 4], min = parts.mins[s + 4];
    bytes[s] = static_cast<uint8_t>(parts.scales[s] | (scale >> 4) << 6);
    bytes[s + 4] = static_cast<uint8_t>(parts.mins[s] | (min >> 4) << 6);
    bytes[s + 8] = static_cast<uint8_t>((scale & 15) | (min & 15) << 4);
  }
}

// q4_k, q5_k.
template <bool kFifth>
void UnpackQ45K(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  parts->d = in.Half();
  parts->m = in.Half();
  UnpackScalesAndMins(in.Bytes(12), parts);
  std::memset(parts->codes.data(), 0, kLarge);
  if (kFifth) AddField(kBits32, in.Bytes(32), kLarge, 4, parts);
  AddField(kNibbles32, in.Bytes(128), kLarge, 0, parts);
}

template <bool kFifth>
void PackQ45K(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  out.Half(parts.d);
  out.Half(parts.m);
  PackScalesAndMins(parts, out.Bytes(12));
  if (kFifth) PutField(kBits32, parts, kLarge, 4, out.Bytes(32));
  PutField(kNibbles32, parts, kLarge, 0, out.Bytes(128));
}

void UnpackQ6K(const uint8_t* block, BlockParts* parts) {
  FieldReader in(block);
  std::memset(parts->codes.data(), 0, kLarge);
  AddField(kNibbles64, in.Bytes(128), kLarge, 0, parts);
  AddField(kPairs32, in.Bytes(64), kLarge, 4, parts);
  std::memcpy(parts->scales.data(), in.Bytes(16), 16);
  parts->mins.fill(0);
  parts->d = in.Half();
  parts->m = 0;
}

void PackQ6K(const BlockParts& parts, uint8_t* block) {
  FieldWriter out(block);
  PutField(kNibbles64, parts, kLarge, 0, out.Bytes(128));
  PutField(kPairs32, parts, kLarge, 4, out.Bytes(64));
  std::memcpy(out.Bytes(16), parts.scales.data(), 16);
  out.Half(parts.d);
}

const BlockType kTypes[] = {
    {"q4_0", 32, 18, 32, 4, 8, false, {}, UnpackSmall<false, false>, PackSmall<false, false>},
    {"q4_1", 32, 20, 32, 4, 0, true, {}, UnpackSmall<true, false>, PackSmall<true, false>},
    {"q5_0", 32, 22, 32, 5, 16, false, {}, UnpackSmall<false, true>, PackSmall<false, true>},
    {"q5_1", 32, 24, 32, 5, 0, true, {}, UnpackSmall<true, true>, PackSmall<true, true>},
    {"q8_0", 32, 34, 32, 8, kQ8Zero, false, {}, UnpackQ8_0, PackQ8_0},
    {"iq4_nl", 32, 18, 32, 4, 0, false, kNonLinear, UnpackSmall<false, false>, PackSmall<false, false>},
    {"q2_k", 256, 84, 16, 2, 0, true, {}, UnpackQ2K, PackQ2K},
    {"q3_k", 256, 110, 16, 3, 4, false, {}, UnpackQ3K, PackQ3K},
    {"q4_k", 256, 144, 32, 4, 0, true, {}, UnpackQ45K<false>, PackQ45K<false>},
    {"q5_k", 256, 176, 32, 5, 0, true, {}, UnpackQ45K<true>, PackQ45K<true>},
    {"q6_k", 256, 210, 16, 6, 32, false, {}, UnpackQ6K, PackQ6K},
};

}  // namespace

absl::Span<const BlockType> BlockTypes() { return kTypes; }

const BlockType* FindBlockType(absl::string_view name) {
  for (const BlockType& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

void DecodeBlock(const BlockType& type, const uint8_t* block, float* x) {
  BlockParts parts;
  type.unpack(block, &parts);
  for (int64_t s = 0; s < type.sub_blocks(); ++s) {
    const float scale = parts.d * static_cast<float>(parts.scales[s]);
    const float offset = type.has_mins ? parts.m * static_cast<float>(parts.mins[s]) : 0.0f;
    for (int64_t i = s * type.sub; i < (s + 1) * type.sub; ++i) {
      const float value = type.values.empty() ? static_cast<float>(parts.codes[i] - type.zero) : type.values[parts.codes[i]];
      x[i] = scale * value - offset;
    }
  }
}

}  // namespace nibble::gguf

// Products with aqlm weights. Few tokens run on the codes, in one of two ways:
//
// - tables: T[g][m][c] = codebook[m][c] . x[group g] for every codeword, once a token;
//   a row is then groups x codebooks look-ups and additions, y[r] = scale[r] sum T.
// - words: a row's codewords are summed as they are read, and multiplied with all
//   tokens while they are in registers.
//
// Tables cost columns x codebooks x 2^bits products, whatever the number of rows, so
// they are for small codebooks, many rows and one token; a codebook of 2^16 words
// is larger than what it decodes. Many tokens decode rows to fp32 for a product of panels.
// Portable C++, compiled for several instruction sets (clones.h), none of which
// changes a bit.

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <variant>

#include "core/base/check.h"
#include "core/kernels/few_tokens.h"
#include "core/kernels/linear.h"
#include "core/quant/formats/aqlm/additive.h"
#include "core/base/clones.h"
#include "core/quant/formats/aqlm/nearest.h"

namespace nibble::additive {
namespace {

using kernels::Arithmetic;
using kernels::InputForm;
using kernels::KernelTable;
using kernels::Linear;
using kernels::PreparedInput;

constexpr int64_t kRows = 64;        // of a block: their codes lie side by side, and a task takes one
constexpr int64_t kLanes = 8;        // columns that are multiplied at a time
constexpr int64_t kTokens = 4;       // that a decoded word meets
constexpr int64_t kTableTokens = 1;  // up to which tables pay: a word meets two tokens for less

typedef float Lanes __attribute__((vector_size(kLanes * sizeof(float))));

Lanes Load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

float Sum(const Lanes& v) { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }

// A tensor as products read it.
template <typename Code>
struct Packed {
  int64_t rows = 0, groups = 0, codebooks = 0, words = 0;
  int64_t pieces = 0;            // of kLanes columns, in a group
  std::vector<Code> codes;       // [row blocks][groups][codebooks][kRows]
  std::vector<float> codebook;   // [codebooks][words][pieces][kLanes], zeros beyond in_group
  std::vector<float> scales;     // [row blocks][kRows]

  const Code* codes_of(int64_t block) const { return codes.data() + block * groups * codebooks * kRows; }
};

template <typename Code>
Packed<Code> PackForProducts(const AdditiveTensor& t) {
  Packed<Code> p{t.rows, t.groups(), t.codebooks, t.words_per_codebook(), CeilDiv(t.in_group, kLanes), {}, {}, {}};
  const int64_t blocks = CeilDiv(t.rows, kRows), row_codes = t.codes_per_row();
  p.codes.resize(blocks * row_codes * kRows);
  p.scales.resize(blocks * kRows);
  p.codebook.resize(p.codebooks * p.words * p.pieces * kLanes);
  std::copy(t.scales.begin(), t.scales.end(), p.scales.begin());
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t i = 0; i < row_codes; ++i) {
      p.codes[(r / kRows * row_codes + i) * kRows + r % kRows] = static_cast<Code>(t.codes[r * row_codes + i]);
    }
  }
  for (int64_t word = 0; word < p.codebooks * p.words; ++word) {
    std::copy_n(t.words.data() + word * t.in_group, t.in_group, p.codebook.data() + word * p.pieces * kLanes);
  }
  return p;
}

// sums[r][t] of a block's rows and `Tokens` tokens. Books, Pieces: as the tensor has
// them, 0 for any number.
template <typename Code, int64_t Tokens, int64_t Books, int64_t Pieces>
inline __attribute__((always_inline)) void MultiplyWords(const Packed<Code>& p, int64_t block, const float* x, int64_t ldx, float* sums) {
  const Code* codes = p.codes_of(block);
  const int64_t books = Books > 0 ? Books : p.codebooks, step = (Pieces > 0 ? Pieces : p.pieces) * kLanes, size = p.words * step;
  for (int64_t r = 0; r < kRows; ++r) {
    Lanes sum[Tokens] = {};
    for (int64_t g = 0; g < p.groups; ++g) {
      const Code* code = codes + g * books * kRows + r;
      for (int64_t piece = 0; piece < step; piece += kLanes) {
        Lanes word = Load(p.codebook.data() + code[0] * step + piece);
        for (int64_t m = 1; m < books; ++m) word += Load(p.codebook.data() + m * size + code[m * kRows] * step + piece);
        for (int64_t t = 0; t < Tokens; ++t) sum[t] += word * Load(x + t * ldx + g * step + piece);
      }
    }
    for (int64_t t = 0; t < Tokens; ++t) sums[r * kTokens + t] = p.scales[block * kRows + r] * Sum(sum[t]);
  }
}

template <typename Code, int64_t Tokens>
inline __attribute__((always_inline)) void MultiplyWordsOfAny(const Packed<Code>& p, int64_t block, const float* x, int64_t ldx, float* sums) {
  if (p.codebooks == 1 && p.pieces == 1) return MultiplyWords<Code, Tokens, 1, 1>(p, block, x, ldx, sums);
  if (p.codebooks == 2 && p.pieces == 1) return MultiplyWords<Code, Tokens, 2, 1>(p, block, x, ldx, sums);
  if (p.codebooks == 3 && p.pieces == 1) return MultiplyWords<Code, Tokens, 3, 1>(p, block, x, ldx, sums);
  MultiplyWords<Code, Tokens, 0, 0>(p, block, x, ldx, sums);
}

template <typename Code>
inline __attribute__((always_inline)) void MultiplyAnyTokens(const Packed<Code>& p, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* sums) {
  switch (tokens) {
    case 1: return MultiplyWordsOfAny<Code, 1>(p, block, x, ldx, sums);
    case 2: return MultiplyWordsOfAny<Code, 2>(p, block, x, ldx, sums);
    case 3: return MultiplyWordsOfAny<Code, 3>(p, block, x, ldx, sums);
    default: return MultiplyWordsOfAny<Code, kTokens>(p, block, x, ldx, sums);
  }
}

NIBBLE_CLONES void MultiplyBlock(const Packed<uint8_t>& p, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* sums) {
  MultiplyAnyTokens(p, block, x, ldx, tokens, sums);
}

NIBBLE_CLONES void MultiplyBlock(const Packed<uint16_t>& p, int64_t block, const float* x, int64_t ldx, int64_t tokens, float* sums) {
  MultiplyAnyTokens(p, block, x, ldx, tokens, sums);
}

// A row, padded to whole pieces.
template <typename Code>
inline __attribute__((always_inline)) void DecodeRowOf(const Packed<Code>& p, int64_t row, float* out) {
  const Code* code = p.codes_of(row / kRows) + row % kRows;
  const int64_t step = p.pieces * kLanes, size = p.words * step;
  for (int64_t g = 0; g < p.groups; ++g, code += p.codebooks * kRows) {
    for (int64_t piece = 0; piece < step; piece += kLanes, out += kLanes) {
      Lanes word = Load(p.codebook.data() + code[0] * step + piece);
      for (int64_t m = 1; m < p.codebooks; ++m) word += Load(p.codebook.data() + m * size + code[m * kRows] * step + piece);
      word *= p.scales[row];
      std::memcpy(out, &word, sizeof(word));
    }
  }
}

NIBBLE_CLONES void DecodeRow(const Packed<uint8_t>& p, int64_t row, float* out) { DecodeRowOf(p, row, out); }
NIBBLE_CLONES void DecodeRow(const Packed<uint16_t>& p, int64_t row, float* out) { DecodeRowOf(p, row, out); }

// sums[r] of a block's rows; tables [groups][codebooks][words].
NIBBLE_CLONES void LookUp(const Packed<uint8_t>& p, int64_t block, const float* tables, float* sums) {
  const uint8_t* codes = p.codes_of(block);
  float sum[kRows] = {};
  for (int64_t i = 0; i < p.groups * p.codebooks; ++i, codes += kRows, tables += p.words) {
    for (int64_t r = 0; r < kRows; ++r) sum[r] += tables[codes[r]];
  }
  for (int64_t r = 0; r < kRows; ++r) sums[r] = p.scales[block * kRows + r] * sum[r];
}

// tables [words] of one group and codebook: columns [lanes] times words side by side.
NIBBLE_CLONES void FillTable(const float* words, int64_t stride, int64_t count, int64_t dim, const float* x, float* table) {
  for (int64_t i = 0; i < count; ++i) table[i] = x[0] * words[i];
  for (int64_t j = 1; j < dim; ++j) {
    for (int64_t i = 0; i < count; ++i) table[i] += x[j] * words[j * stride + i];
  }
}

template <typename Code>
class AdditiveLinear : public Linear {
 public:
  AdditiveLinear(const AdditiveTensor& weight, InputForm form, const KernelTable& table)
      : packed_(PackForProducts<Code>(weight)), table_(table), in_group_(weight.in_group) {
    rows_ = weight.rows;
    cols_ = weight.cols;
    form_ = std::move(form);
    const int64_t step = packed_.pieces * kLanes;
    if (packed_.groups * step != cols_) {
      if (form_.kind == InputForm::Kind::kFloat) form_.kind = InputForm::Kind::kPaddedFloat;
      form_.group = in_group_;
      form_.padded_group = step;
      form_.padded_cols = packed_.groups * step;
    }
    const int64_t table_rows = packed_.words;  // fewer do not pay for the tables
    if (std::is_same_v<Code, uint8_t> && rows_ >= table_rows) {
      for (int64_t m = 0; m < packed_.codebooks; ++m) {
        word_tables_.emplace_back(absl::MakeConstSpan(weight.words).subspan(m * packed_.words * in_group_, packed_.words * in_group_), in_group_);
      }
    }
    weight_bytes_ = static_cast<int64_t>(packed_.codes.size() * sizeof(Code) + (packed_.codebook.size() + packed_.scales.size()) * sizeof(float));
    for (const WordTable& words : word_tables_) weight_bytes_ += words.stride() * words.dim() * static_cast<int64_t>(sizeof(float));
  }

  absl::Status Multiply(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const override {
    NIBBLE_CHECK(x.form() == form_);
    if (x.tokens() > kernels::kFewTokens) {
      const auto decode = [this](int64_t begin, int64_t end, float* out) { DecodeRows(begin, end, out); };
      kernels::MultiplyDecoded(x, rows_, cols_, table_, decode, y, ldy, pool);
    } else if (x.tokens() <= kTableTokens && !word_tables_.empty()) {
      MultiplyByTables(x, y, ldy, pool);
    } else {
      MultiplyByWords(x, y, ldy, pool);
    }
    return absl::OkStatus();
  }

 private:
  void MultiplyByWords(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const {
    pool.ParallelFor(CeilDiv(rows_, kRows), [&](int64_t block, int) {
      float sums[kRows * kTokens];
      const int64_t row = block * kRows, n = std::min(kRows, rows_ - row);
      for (int64_t t = 0; t < x.tokens(); t += kTokens) {
        const int64_t tokens = std::min(kTokens, x.tokens() - t);
        MultiplyBlock(packed_, block, x.floats() + t * x.stride(), x.stride(), tokens, sums);
        for (int64_t i = 0; i < tokens; ++i) {
          for (int64_t r = 0; r < n; ++r) y[(t + i) * ldy + row + r] = sums[r * kTokens + i];
        }
      }
    });
  }

  void MultiplyByTables(const PreparedInput& x, float* y, int64_t ldy, ThreadPool& pool) const {
    if constexpr (std::is_same_v<Code, uint8_t>) {
      const int64_t size = packed_.groups * packed_.codebooks * packed_.words, step = packed_.pieces * kLanes;
      const std::unique_ptr<float[]> tables(new float[x.tokens() * size]);
      pool.ParallelFor(x.tokens() * packed_.groups, [&](int64_t i, int) {
        const int64_t t = i / packed_.groups, g = i % packed_.groups;
        for (int64_t m = 0; m < packed_.codebooks; ++m) {
          FillTable(word_tables_[m].data(), word_tables_[m].stride(), packed_.words, in_group_, x.floats() + t * x.stride() + g * step,
                    tables.get() + t * size + (g * packed_.codebooks + m) * packed_.words);
        }
      });
      pool.ParallelFor(CeilDiv(rows_, kRows), [&](int64_t block, int) {
        float sums[kRows];
        const int64_t row = block * kRows, n = std::min(kRows, rows_ - row);
        for (int64_t t = 0; t < x.tokens(); ++t) {
          LookUp(packed_, block, tables.get() + t * size, sums);
          std::copy_n(sums, n, y + t * ldy + row);
        }
      });
    }
  }

  void DecodeRows(int64_t begin, int64_t end, float* out) const {
    const int64_t step = packed_.pieces * kLanes;
    std::vector<float> row(packed_.groups * step);
    for (int64_t r = begin; r < end; ++r) {
      DecodeRow(packed_, r, row.data());
      for (int64_t c = 0; c < cols_; c += in_group_) out = std::copy_n(row.data() + c / in_group_ * step, std::min(in_group_, cols_ - c), out);
    }
  }

  const Packed<Code> packed_;
  const KernelTable& table_;
  const int64_t in_group_;
  std::vector<WordTable> word_tables_;  // of each codebook, where tables pay
};

std::unique_ptr<Linear> MakeLinear(const EncodedTensor& weight, const InputForm& form, const KernelTable& table) {
  const AdditiveTensor tensor = Unpack(weight);
  if (tensor.bits <= 8) return std::make_unique<AdditiveLinear<uint8_t>>(tensor, form, table);
  return std::make_unique<AdditiveLinear<uint16_t>>(tensor, form, table);
}

const kernels::LinearRegistrar kRegistrar(kFormatName, MakeLinear);

}  // namespace
}  // namespace nibble::additive

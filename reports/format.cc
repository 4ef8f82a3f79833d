#include "reports/format.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace nibble {
namespace {

bool IsMebibytes(const Metric& metric) {
  return metric.unit() == "MiB" || absl::EndsWith(metric.name(), "_mib");
}

std::string NonFinite(double value) { return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"; }

template <typename Format>
std::string FormatInterval(const Metric& metric, const Interval& interval, Format format) {
  return absl::StrCat("[", format(metric, interval.low), ", ", format(metric, interval.high), "]");
}

// The estimate, with its interval where it has one.
template <typename Format>
std::string FormatEstimate(const Metric& metric, const Estimate& estimate, absl::string_view unit, Format format) {
  const std::string value = absl::StrCat(format(metric, estimate.value), unit);
  return estimate.interval.has_value() ? absl::StrCat(value, " ", FormatInterval(metric, *estimate.interval, format)) : value;
}

// The decimal exponent after rounding to `digits` digits: 9.9996 is 1.000e1.
int ExponentOf(double value, int digits) {
  const std::string text = absl::StrFormat("%.*e", digits - 1, value);
  int exponent = 0;
  (void)absl::SimpleAtoi(text.substr(text.find('e') + 1), &exponent);
  return exponent;
}

}  // namespace

std::string Significant(double value, int digits) {
  if (!std::isfinite(value)) return NonFinite(value);
  if (value == 0) return "0";
  const int exponent = ExponentOf(value, digits);
  if (exponent < -4 || exponent >= 9) return absl::StrFormat("%.*e", digits - 1, value);
  return absl::StrFormat("%.*f", std::max(0, digits - 1 - exponent), value);
}

std::string Decimals(double value, int decimals) {
  if (!std::isfinite(value)) return NonFinite(value);
  std::string text = absl::StrFormat("%.*f", decimals, value);
  const bool is_zero = text.find_first_of("123456789") == std::string::npos;
  return is_zero && text[0] == '-' ? text.substr(1) : text;
}

std::string Exact(double value) {
  if (!std::isfinite(value)) return NonFinite(value);
  char text[32];
  const auto end = std::to_chars(text, text + sizeof(text), value).ptr;
  return std::string(text, end);
}

bool IsShare(const Metric& metric) {
  return absl::StartsWith(metric.name(), "accuracy") || absl::StartsWith(metric.name(), "exact_match") ||
         absl::StartsWith(metric.name(), "top1_agreement");
}

std::string FormatValue(const Metric& metric, double value) {
  if (IsShare(metric)) return Decimals(100 * value, 1);
  if (IsMebibytes(metric)) return Decimals(value, 1);
  return Significant(value, IsTiming(metric) ? 3 : 4);
}

std::string FormatDeviation(const Metric& metric, double deviation) {
  return IsShare(metric) ? Decimals(100 * deviation, 1) : Significant(deviation, 2);
}

std::string FormatDifference(const Metric& metric, double difference) {
  const std::string text = FormatValue(metric, difference);
  const bool needs_sign = text[0] != '-' && text.find_first_of("123456789") != std::string::npos;
  return needs_sign ? absl::StrCat("+", text) : text;
}

std::string FormatDifferences(const Metric& metric, const Interval& interval) { return FormatInterval(metric, interval, FormatDifference); }

std::string FormatRatio(const Metric& metric, double ratio) { return Significant(ratio, IsTiming(metric) ? 3 : 4); }

std::string FormatMeasured(const Metric& metric) {
  const std::string value = FormatValue(metric, metric.value());
  return metric.has_stderr() ? absl::StrCat(value, " ± ", FormatDeviation(metric, metric.stderr())) : value;
}

std::string FormatComparison(const Metric& metric, const Comparison& comparison) {
  if (const auto& ratio = comparison.ratio) return absl::StrCat("×", FormatEstimate(metric, *ratio, "", FormatRatio));
  const auto& difference = comparison.difference;
  return difference.has_value() ? FormatEstimate(metric, *difference, IsShare(metric) ? " pp" : "", FormatDifference) : "";
}

std::string FormatUnit(const Metric& metric) {
  if (IsShare(metric)) return "%";
  if (IsMebibytes(metric)) return "MiB";
  return metric.unit();
}

std::string MarkdownCell(absl::string_view text) {
  const std::string line = absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\r\n", " "}, {"\n", " "}, {"\r", " "}});
  return absl::StrReplaceAll(line, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"|", "\\|"}, {"*", "\\*"},
                                    {"`", "\\`"}, {"[", "\\["}, {"\\", "\\\\"}});
}

std::string EscapeXml(absl::string_view text) {
  std::string clean;
  for (const char c : text) {
    const bool forbidden = (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
    absl::StrAppend(&clean, forbidden ? "\xef\xbf\xbd" : absl::string_view(&c, 1));
  }
  return absl::StrReplaceAll(clean, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

std::string CodeBlock(absl::string_view text, absl::string_view language) {
  size_t longest = 2, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  const std::string fence(longest + 1, '`');
  return absl::StrCat(fence, language, "\n", absl::StripTrailingAsciiWhitespace(text), "\n", fence, "\n");
}

}  // namespace nibble

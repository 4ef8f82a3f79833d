// Numbers and names as a report prints them. Nothing here depends on the locale.
#ifndef NIBBLE_REPORTS_FORMAT_H_
#define NIBBLE_REPORTS_FORMAT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "eval/result.pb.h"
#include "eval/statistics.h"

namespace nibble {

// `digits` significant digits without an exponent between 1e-4 and 1e9 ("0.0123",
// "12.30"), with one beyond; "nan", "inf" and "-inf".
std::string Significant(double value, int digits);

// `decimals` digits after the point.
std::string Decimals(double value, int decimals);

// The shortest text that reads back as the same number.
std::string Exact(double value);

// Shares of 1 that are shown in percent: accuracies and agreements.
bool IsShare(const Metric& metric);

// Perplexities and divergences 4 significant digits, shares in percent with one
// decimal (the sign is in FormatUnit), rates and times 3 digits, MiB one decimal.
std::string FormatValue(const Metric& metric, double value);

// Like the value; a deviation too small for that shows two significant digits.
std::string FormatDeviation(const Metric& metric, double deviation);

// With a sign; "pp" (percentage points) after shares.
std::string FormatDifference(const Metric& metric, double difference);

// "[-0.7, +0.2]": two differences.
std::string FormatDifferences(const Metric& metric, const Interval& interval);

// 4 significant digits; of rates and times 3.
std::string FormatRatio(const Metric& metric, double ratio);

// The value, with its standard error where it has one: "12.30 ± 0.12".
std::string FormatMeasured(const Metric& metric);

// The ratio or the difference with its interval: "×1.010 [1.009, 1.011]",
// "-0.2 pp [-0.7, +0.2]"; "" where there is neither.
std::string FormatComparison(const Metric& metric, const Comparison& comparison);

// "%", "MiB", ..., or "" where the name says it all.
std::string FormatUnit(const Metric& metric);

// Text safe in a Markdown table cell: one line, bars and angle brackets escaped.
std::string MarkdownCell(absl::string_view text);

// Text safe in XML content and attributes; control characters, which XML and HTML forbid,
// as U+FFFD.
std::string EscapeXml(absl::string_view text);

// A fenced code block, its fence longer than any run of backticks in `text`.
std::string CodeBlock(absl::string_view text, absl::string_view language = "");

}  // namespace nibble

#endif  // NIBBLE_REPORTS_FORMAT_H_

#include "reports/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "reports/axes.h"

namespace nibble {
namespace {

constexpr size_t kPoints = 240;
constexpr const char* kColours[] = {"#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#0a7ea4"};

double MeanOf(const std::vector<double>& values, size_t first, size_t last) {
  return std::accumulate(values.begin() + first, values.begin() + last, 0.0) / static_cast<double>(last - first);
}

std::vector<double> RunningMeans(const std::vector<double>& loss) {
  const size_t span = std::max<size_t>(1, loss.size() / 50);
  std::vector<double> means(loss.size());
  for (size_t i = 0; i < loss.size(); ++i) means[i] = MeanOf(loss, i + 1 < span ? 0 : i + 1 - span, i + 1);
  return means;
}

std::string Path(const std::vector<double>& means, const Axis& x, const Axis& y, const char* colour) {
  std::string path;
  const size_t step = std::max<size_t>(1, means.size() / kPoints);
  for (size_t i = 0; i < means.size(); i += step) {
    if (!std::isfinite(means[i])) continue;
    absl::StrAppendFormat(&path, "%s%.1f %.1f", path.empty() ? "M" : "L", x.Pixel(static_cast<double>(i + 1)), y.Pixel(means[i]));
  }
  return absl::StrFormat("<path d=\"%s\" stroke=\"%s\" stroke-width=\"1.5\" fill=\"none\"/>\n", path, colour);
}

}  // namespace

std::string CurveSvg(const std::vector<NamedCurve>& curves) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  size_t updates = 0;
  std::vector<std::vector<double>> means;
  for (const NamedCurve& curve : curves) {
    means.push_back(RunningMeans(curve.loss));
    updates = std::max(updates, curve.loss.size());
    for (const double loss : means.back()) {
      if (!std::isfinite(loss)) continue;
      low = std::min(low, loss);
      high = std::max(high, loss);
    }
  }
  if (low > high) return "";
  const Axis x = HorizontalAxis(1, static_cast<double>(updates)), y = VerticalAxis(low, high, false);
  std::string svg = absl::StrCat(SvgHead(), XAxis(x, "update"), YAxis(y, "loss"));
  for (size_t i = 0; i < curves.size(); ++i) {
    const char* colour = kColours[i % std::size(kColours)];
    absl::StrAppend(&svg, Path(means[i], x, y, colour),
                    SvgText(kPlotRight - 8, kPlotTop + 16 + 16 * static_cast<double>(i), "end", curves[i].label, absl::StrCat(" fill=\"", colour, "\"")));
  }
  return absl::StrCat(svg, "</svg>\n");
}

double LastLoss(const std::vector<double>& loss) {
  return loss.empty() ? 0 : MeanOf(loss, loss.size() - (loss.size() + 9) / 10, loss.size());
}

std::vector<double> Thinned(const std::vector<double>& values, size_t points) {
  if (values.size() <= points) return values;
  std::vector<double> thinned;
  for (size_t i = 0; i < points; ++i) thinned.push_back(MeanOf(values, values.size() * i / points, values.size() * (i + 1) / points));
  return thinned;
}

}  // namespace nibble

// Vega-Lite specifications to still pictures, and the JavaScript that makes them
// live, both by vl-convert (third_party/python.txt).
#ifndef NIBBLE_REPORTS_RENDER_H_
#define NIBBLE_REPORTS_RENDER_H_

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace nibble {

struct RenderedCharts {
  std::string script;                      // Vega, Vega-Lite and Vega-Embed: defines vegaEmbed
  std::string versions;                    // "Vega 6.2.0, Vega-Lite 6.4.1, Vega-Embed 7.0.2"
  std::map<std::string, std::string> svg;  // by the name of the specification
};

// Where `./nibble setup` puts the Python packages: $NIBBLE_PYTHON or
// python/ in CacheDirectory().
std::string PythonPackages();

// Renders all specifications of `charts_file` (a charts.json). NotFound where
// vl-convert or Python is not installed; other errors name the specification.
absl::StatusOr<RenderedCharts> RenderCharts(const std::string& charts_file);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_RENDER_H_

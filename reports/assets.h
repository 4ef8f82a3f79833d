// Files of this folder that are part of the program (BUILD.bazel makes assets.cc).
#ifndef NIBBLE_REPORTS_ASSETS_H_
#define NIBBLE_REPORTS_ASSETS_H_

namespace nibble {

extern const char kPageStyle[];     // page.css
extern const char kPageScript[];    // page.js
extern const char kChartsScript[];  // charts.py
extern const char kVegaLicense[];   // vega_license.txt

}  // namespace nibble

#endif  // NIBBLE_REPORTS_ASSETS_H_

// report.md: what a run measured, for people. It holds no date and no duration,
// so that the same results give the same text.
#ifndef NIBBLE_REPORTS_MARKDOWN_H_
#define NIBBLE_REPORTS_MARKDOWN_H_

#include <string>
#include <vector>

#include "reports/findings.h"
#include "reports/run_table.h"

namespace nibble {

// `findings` are those of the table. `plot` and `loss_plot` are the plots' file names beside the report, "" without
// one; `layers_file` is that of the table of layers, which it has where the run
// has layers.
std::string ReportMarkdown(const RunTable& table, const Findings& findings, const std::string& plot, const std::string& loss_plot,
                           const std::string& layers_file);

}  // namespace nibble

#endif  // NIBBLE_REPORTS_MARKDOWN_H_

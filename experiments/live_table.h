// LiveTable: where a run stands, on a terminal: variants by metrics, the job that runs, the
// time left. It is drawn again in place; lines that stay are written above it.
#ifndef NIBBLE_EXPERIMENTS_LIVE_TABLE_H_
#define NIBBLE_EXPERIMENTS_LIVE_TABLE_H_

#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace nibble {

class LiveTable {
 public:
  struct Size {
    int width = 80, height = 24;
  };

  LiveTable(std::vector<std::string> rows, std::vector<std::string> columns);

  // The row that lines are chosen around when all do not fit.
  void SetCurrent(size_t row) { current_ = row; }
  void SetCell(size_t row, size_t column, std::string text) { cells_[row][column] = std::move(text); }
  // Under the table, one line each; "" for none.
  void SetFooter(std::string job, std::string share) { footer_ = {std::move(job), std::move(share)}; }

  // The lines of the table in so much room; what of it does not fit is counted in words.
  std::vector<std::string> Lines(Size size) const;

  // Draws over what was drawn before; `above` is a line that stays ("" for none).
  void Draw(std::FILE* terminal, Size size, absl::string_view above = "");

 private:
  std::string Line(absl::string_view name, const std::vector<std::string>& cells, size_t columns) const;
  size_t NameWidth() const;

  const std::vector<std::string> rows_, columns_;
  std::vector<std::vector<std::string>> cells_;
  std::vector<std::string> footer_ = {"", ""};
  size_t current_ = 0;
  int drawn_ = 0;  // lines above the cursor
};

// Of the terminal that standard error is.
LiveTable::Size TerminalSize();

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_LIVE_TABLE_H_

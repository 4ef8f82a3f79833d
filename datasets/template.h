// Texts made of a row's columns: "Question: {question}\nAnswer:".
#ifndef NIBBLE_DATASETS_TEMPLATE_H_
#define NIBBLE_DATASETS_TEMPLATE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "datasets/rows.h"

namespace nibble::datasets {

class Template {
 public:
  // Error: a brace without its other one, a column without a name.
  static absl::StatusOr<Template> Parse(absl::string_view text);

  // Errors name the row's place and the column: it is missing, or has no text.
  absl::StatusOr<std::string> Render(const Row& row) const;

  // The elements where the template is one column that holds a list, else Render alone.
  absl::StatusOr<std::vector<std::string>> RenderList(const Row& row) const;

  bool empty() const { return pieces_.empty(); }
  // For messages: the column's name where the template is that alone, else its text.
  const std::string& name() const { return name_; }

 private:
  // A literal text, or a column: a path of names and list indices.
  struct Piece {
    std::string literal;
    std::string column;  // as it is spelled; "" for a literal
    nlohmann::json::json_pointer path;
  };
  absl::StatusOr<const nlohmann::json*> Find(const Piece& piece, const Row& row) const;

  std::vector<Piece> pieces_;
  std::string name_;
};

}  // namespace nibble::datasets

#endif  // NIBBLE_DATASETS_TEMPLATE_H_

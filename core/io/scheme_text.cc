#include "core/io/scheme_text.h"

#include "absl/strings/str_cat.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"

namespace nibble::io {
namespace {

using google::protobuf::TextFormat;

// Keeps the first error; without a collector the parser would print it.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, int column, const std::string& message) override {
    if (message_.empty()) message_ = absl::StrCat("column ", column + 1, ": ", message);
  }
  const std::string& message() const { return message_; }

 private:
  std::string message_;
};

}  // namespace

std::string SchemeToText(const QuantScheme& scheme) {
  return ProtoToLine(scheme);
}

absl::StatusOr<QuantScheme> SchemeFromText(absl::string_view text) {
  FirstError error;
  TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  QuantScheme scheme;
  if (!parser.ParseFromString(std::string(text), &scheme)) {
    return absl::InvalidArgumentError(absl::StrCat("scheme '", text, "', ", error.message()));
  }
  NIBBLE_RETURN_IF_ERROR(ValidateScheme(scheme));
  return scheme;
}

}  // namespace nibble::io

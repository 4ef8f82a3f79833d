// Textproto configs with errors a user can act on: file, line, column, and
// "did you mean" for fields, enum values and methods.
#ifndef NIBBLE_EXPERIMENTS_TEXT_CONFIG_H_
#define NIBBLE_EXPERIMENTS_TEXT_CONFIG_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"

namespace nibble {

// Parses `text` into `message`; `source` starts each error, which reads
// "source:line:column: message".
absl::Status ParseText(absl::string_view text, const std::string& source, google::protobuf::Message* message,
                       google::protobuf::TextFormat::ParseInfoTree* locations = nullptr);

// ParseText of a file. `locations`, when given, receives where each field stands.
absl::Status ReadTextFile(const std::string& path, google::protobuf::Message* message,
                          google::protobuf::TextFormat::ParseInfoTree* locations = nullptr);

// The folder of a config, where its relative paths start; "." for a bare name.
std::string DirectoryOf(const std::string& path);

// Puts in place of each TrainingData.include below `message` what the file says
// (relative to `directory`), before the fields that stand beside it.
absl::Status ResolveIncludedData(google::protobuf::Message* message, const std::string& directory);

// Sets one field by path: "model.source", "variant[2].name",
// "variant[w4].step[0].group_size" (an element by its name), where a step's
// next component is an option of the method it holds. The value is text as a
// config spells it; strings may go without quotes.
absl::Status SetField(google::protobuf::Message* message, absl::string_view path, const std::string& value);

}  // namespace nibble

#endif  // NIBBLE_EXPERIMENTS_TEXT_CONFIG_H_

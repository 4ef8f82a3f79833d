// How protocol messages are written as text, so that every file and key of
// Nibble writes them alike.
#ifndef NIBBLE_CORE_BASE_PROTO_H_
#define NIBBLE_CORE_BASE_PROTO_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"

namespace nibble {

// JSON with the proto's own field names; on one line unless `pretty`. Error: a
// string field that is not UTF-8.
absl::StatusOr<std::string> ProtoToJson(const google::protobuf::Message& message, bool pretty = false);

// What ProtoToJson wrote. Fields that are not known are an error, or skipped.
enum class UnknownFields { kRefuse, kSkip };
absl::Status JsonToProto(absl::string_view json, google::protobuf::Message* message, UnknownFields unknown = UnknownFields::kRefuse);

// Text format on one line, without a space at its end.
std::string ProtoToLine(const google::protobuf::Message& message);

// Text format, a field a line.
std::string ProtoToText(const google::protobuf::Message& message);

}  // namespace nibble

#endif  // NIBBLE_CORE_BASE_PROTO_H_

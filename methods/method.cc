#include "methods/method.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/base/proto.h"
#include "core/base/status.h"
#include "core/base/suggest.h"

namespace nibble {
namespace {

std::map<std::string, MethodInfo>& Registry() {
  static auto* registry = new std::map<std::string, MethodInfo>;
  return *registry;
}

std::vector<std::string> MethodNames() {
  std::vector<std::string> names;
  for (const auto& [name, info] : Registry()) names.push_back(name);
  return names;
}

const MethodInfo* FindByExtension(const google::protobuf::FieldDescriptor* extension) {
  const auto it = Registry().find(extension->name());
  return it == Registry().end() ? nullptr : &it->second;
}

// The extension that a step sets.
absl::StatusOr<const google::protobuf::FieldDescriptor*> StepExtension(const Step& step) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
  step.GetReflection()->ListFields(step, &set);
  if (set.size() == 1) return set[0];
  return absl::InvalidArgumentError(absl::StrCat("a step holds exactly one method, this one holds ", set.size(), "; known methods: ",
                                                 absl::StrJoin(MethodNames(), ", ")));
}

}  // namespace

void Context::CountEvent(const std::string& what, int64_t count, const std::string& detail) {
  CountedEvent& event = record_.events[what];
  if (event.count == 0) event.detail = detail;
  event.count += count;
}

const std::map<std::string, MethodInfo>& RegisteredMethods() { return Registry(); }

void RegisterMethod(const google::protobuf::FieldDescriptor* extension, MethodFactory factory) {
  if (extension == nullptr || !Registry().emplace(extension->name(), MethodInfo{extension->name(), extension->number(), extension,
                                                                                std::move(factory)}).second) {
    std::fprintf(stderr, "method '%s' is registered twice or has no extension\n", extension == nullptr ? "?" : extension->name().c_str());
    std::abort();
  }
}

absl::StatusOr<std::unique_ptr<Method>> MakeMethod(const Step& step) {
  NIBBLE_ASSIGN_OR_RETURN(const auto* extension, StepExtension(step));
  const MethodInfo* info = FindByExtension(extension);
  if (info == nullptr) return absl::NotFoundError(UnknownName("method", extension->name(), MethodNames()));
  absl::StatusOr<std::unique_ptr<Method>> method = info->factory(step);
  if (!method.ok()) return Annotate(method.status(), absl::StrCat("[nibble.", info->name, "]"));
  return method;
}

absl::StatusOr<bool> ApplyStep(Context& context, const Step& step, int index, ir::Graph& graph) {
  NIBBLE_ASSIGN_OR_RETURN(const auto method, MakeMethod(step));
  NIBBLE_ASSIGN_OR_RETURN(const auto* extension, StepExtension(step));
  const std::string place = absl::StrCat("step ", index, " [nibble.", extension->name(), "]");
  NIBBLE_RETURN_IF_ERROR(Annotate(method->Apply(context, graph), place));
  NIBBLE_RETURN_IF_ERROR(Annotate(ir::Verify(graph), absl::StrCat("after ", place)));
  return method->learns();
}

absl::Status ApplyPipeline(Context& context, const google::protobuf::RepeatedPtrField<Step>& steps, ir::Graph& graph) {
  for (int i = 0; i < steps.size(); ++i) NIBBLE_RETURN_IF_ERROR(ApplyStep(context, steps[i], i, graph).status());
  return absl::OkStatus();
}

std::string PipelineToString(const google::protobuf::RepeatedPtrField<Step>& steps) {
  std::vector<std::string> parts;
  for (const Step& step : steps) {
    const auto extension = StepExtension(step);
    if (!extension.ok()) continue;
    const std::string options = ProtoToLine(step.GetReflection()->GetMessage(step, *extension));
    parts.push_back(options.empty() ? (*extension)->name() : absl::StrCat((*extension)->name(), " { ", options, " }"));
  }
  return absl::StrJoin(parts, " -> ");
}

}  // namespace nibble

"""cc_proto: a C++ library from .proto files by the system's protoc.

The descriptors keep their comments (`--include_source_info` into a
descriptor set), because `nibble methods` prints a method's options from them.
"""

def cc_proto(name, srcs, deps = [], visibility = None):
    """Compiles `srcs` of this package; `deps` are other cc_proto names' labels."""
    outs = []
    for src in srcs:
        base = src[:-len(".proto")]
        outs += [base + ".pb.cc", base + ".pb.h"]
    native.filegroup(
        name = name + "_srcs",
        srcs = srcs + [d + "_srcs" for d in deps],
        visibility = ["//visibility:public"],
    )
    native.genrule(
        name = name + "_gen",
        srcs = [":" + name + "_srcs"],
        outs = outs,
        cmd = "protoc -I. -I/usr/include --cpp_out=$(GENDIR) " +
              " ".join(["$(location %s)" % s for s in srcs]),
        tools = srcs,
    )
    native.genrule(
        name = name + "_descriptor_gen",
        srcs = [":" + name + "_srcs"],
        outs = [name + ".desc"],
        cmd = "protoc -I. -I/usr/include --include_source_info --descriptor_set_out=$@ " +
              " ".join(["$(location %s)" % s for s in srcs]),
        tools = srcs,
    )
    native.cc_library(
        name = name,
        srcs = [o for o in outs if o.endswith(".cc")],
        hdrs = [o for o in outs if o.endswith(".h")],
        copts = ["-w"],
        deps = deps + ["@system//:protobuf"],
        visibility = visibility,
    )

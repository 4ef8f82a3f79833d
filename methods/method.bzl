"""nibble_method: everything that a method's folder needs to build.

A method NAME is options in NAME.proto, an implementation in NAME.cc and a test
in NAME_test.cc. The proto's comments are embedded, so that `nibble methods`
documents the options from them.
"""

load("//third_party:proto.bzl", "cc_proto")

def proto_docs(name, proto):
    """NAME.cc registers the descriptors and comments of the cc_proto `proto`."""
    native.genrule(
        name = name + "_gen",
        srcs = [":%s.desc" % proto],
        outs = [name + ".cc"],
        cmd = "(echo '#include \"methods/method.h\"'; " +
              "echo 'static const unsigned char kBytes[] = {'; " +
              "od -An -v -tx1 $< | sed 's/ \\([0-9a-f][0-9a-f]\\)/0x\\1,/g'; echo '};'; " +
              "echo 'static const nibble::ProtoDocs kDocs(kBytes, sizeof(kBytes));') > $@",
    )

def nibble_method(name, deps = [], proto_deps = [], test_deps = []):
    cc_proto(
        name = name + "_proto",
        srcs = [name + ".proto"],
        visibility = ["//visibility:public"],
        deps = ["//methods:step_proto", "//core/quant:scheme_proto"] + proto_deps,
    )
    proto_docs(name = name + "_docs", proto = name + "_proto")
    native.cc_library(
        name = name,
        srcs = [name + ".cc", name + "_docs.cc"],
        visibility = ["//visibility:public"],
        alwayslink = True,
        deps = [":%s_proto" % name, "//methods:method"] + deps,
    )
    native.cc_test(
        name = name + "_test",
        size = "medium",
        srcs = [name + "_test.cc"],
        deps = [
            ":" + name,
            "//methods:testing",
        ] + test_deps,
    )

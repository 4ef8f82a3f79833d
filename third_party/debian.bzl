"""The external repositories that a build needs, all served by Debian packages.

Bazel asks for the rule repositories even where nothing uses them; without an
override it would try to download them.
"""

def debian_repositories():
    native.local_repository(name = "rules_cc", path = "third_party/rules_cc")
    native.local_repository(name = "remote_coverage_tools", path = "third_party/remote_coverage_tools")
    native.local_repository(name = "rules_java", path = "/usr/share/bazel/rules/java")
    native.local_repository(name = "rules_proto", path = "/usr/share/bazel/rules/proto")
    native.local_repository(name = "bazel_skylib", path = "/usr/share/bazel/tools/skylib")
    native.local_repository(name = "platforms", path = "/usr/share/bazel/tools/platforms")
    native.new_local_repository(
        name = "system",
        path = "/usr/include",
        build_file = "//third_party:system.BUILD",
    )

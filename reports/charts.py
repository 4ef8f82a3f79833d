"""Renders Vega-Lite charts with vl-convert: charts.py PACKAGES CHARTS

PACKAGES is the folder that holds vl_convert, CHARTS a JSON object of
specifications by name. Writes one JSON object: "script" (Vega, Vega-Lite and
Vega-Embed, which defines vegaEmbed), "versions" and "svg" (a picture by name),
or "error" and "missing" (whether it is vl-convert that is missing).
"""

import json
import re
import sys

VEGA_LITE = "6.4"


def still_picture(vl_convert, name, spec):
    """An SVG that can stand in a page beside others: its ids are its own."""
    # No specification of ours refers to data elsewhere; none may.
    svg = vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE, allowed_base_urls=[])
    svg = re.sub(r'\bid="([^"]*)"', lambda m: 'id="%s-%s"' % (name, m[1]), svg)
    svg = re.sub(r"url\(#([^)]*)\)", lambda m: "url(#%s-%s)" % (name, m[1]), svg)
    # Links within the page have been made relative to where Vega takes data from.
    return re.sub(r'\bxlink:href="[^"#]*#', 'href="#', svg)


def render(packages, charts):
    # Only the pinned package counts, not one that happens to be installed.
    sys.path.insert(0, packages)
    try:
        import vl_convert
    except ImportError as error:
        return {"error": "no vl-convert in %s (%s)" % (packages, error), "missing": True}
    with open(charts, encoding="utf-8") as file:
        specs = json.load(file)
    pictures = {}
    for name, spec in specs.items():
        try:
            pictures[name] = still_picture(vl_convert, name, spec)
        except ValueError as error:
            return {"error": "chart '%s': %s" % (name, str(error)[:500]), "missing": False}
    versions = "Vega %s, Vega-Lite %s, Vega-Embed %s" % (
        vl_convert.get_vega_version(), VEGA_LITE, vl_convert.get_vega_embed_version())
    return {"script": vl_convert.javascript_bundle(vl_version=VEGA_LITE), "versions": versions, "svg": pictures}


if __name__ == "__main__":
    json.dump(render(sys.argv[1], sys.argv[2]), sys.stdout)

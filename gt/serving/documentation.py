"""A documentation page rendered from an OpenAPI schema, without scripts or external resources."""

import html
import json
from collections.abc import Mapping
from typing import Any

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
       color: light-dark(#222, #ddd); background: light-dark(#fff, #161616); overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin-top: 2.2rem } pre { overflow-x: auto; font-size: 14px }
pre, code { background: light-dark(#f3f3f3, #2a2a2a); padding: 0 .25em }
td { padding: .1rem 1rem .1rem 0; vertical-align: top }
"""


def page(api: Mapping[str, Any]) -> str:
    """Render the HTML page: each path with its parameters, request body, an example and its responses.

    Args:
        api: the content of ``/openapi.json``, with references into ``components/schemas``.
    """
    info, parts = api["info"], []
    for path, methods in api["paths"].items():
        for method, spec in methods.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(spec.get('description', spec.get('summary', '')))}</p>")
            parameters = {
                f"{each['name']} ({each['in']})": _type(each["schema"]) for each in spec.get("parameters", ())
            }
            parts.append(_table(parameters))
            for kind, content in spec.get("requestBody", {}).get("content", {}).items():
                schema = _resolved(content["schema"], api)
                properties = schema.get("properties", {})
                parts.append(_table({name: _type(each) for name, each in properties.items()}))
                example = {name: each["examples"][0] for name, each in properties.items() if "examples" in each}
                command = f"curl localhost:8000{path} -H 'Content-Type: {kind}' -d '{json.dumps(example)}'"
                parts.append(f"<pre>{html.escape(command)}</pre>")
            parts.append(_table({code: _response(each, api) for code, each in spec["responses"].items()}))
    title = html.escape(f"{info['title']} {info['version']}")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{html.escape(info.get('description', ''))} "
        f'For programs: <a href="openapi.json">openapi.json</a>.</p>{"".join(parts)}</html>\n'
    )


def _table(rows: Mapping[str, str]) -> str:
    lines = (f"<tr><td><code>{html.escape(k)}</code></td><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{''.join(lines)}</table>" if rows else ""


def _response(response: Mapping[str, Any], api: Mapping[str, Any]) -> str:
    schemas = [_resolved(each["schema"], api) for each in response.get("content", {}).values() if each.get("schema")]
    fields = ", ".join(f"{name}: {_type(each)}" for s in schemas for name, each in s.get("properties", {}).items())
    description = " ".join(schema["description"] for schema in schemas if "description" in schema)
    return ". ".join(part for part in (response["description"], description.rstrip("."), fields) if part)


def _resolved(schema: Mapping[str, Any], api: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve the reference of a schema, if it is one."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return api["components"]["schemas"][name] if name else schema


def _type(schema: Mapping[str, Any]) -> str:
    """Describe a type in words: ``array of string or object``."""
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_type(schema['items'])}" if schema.get("items") else kind

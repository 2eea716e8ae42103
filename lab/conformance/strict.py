"""Parses a body strictly into one of libica's generated models.

libica's own parser ignores unknown members. Here an unknown member is an error, and so is a value of the wrong type.
The model must serialize to the body that it was parsed from.
"""

import datetime
import re

from dateutil.parser import isoparse
from libica.openapi.libtes import ApiClient, models

PRIMITIVES = {"str": str, "int": int, "bool": bool, "float": float}


def parse(body, kind, path="body"):
    """The model `kind` (libica's notation, such as `list[ContainerStatus]`) of a body."""
    if inner := re.fullmatch(r"list\[(.*)\]", kind):
        expect(isinstance(body, list), path, "a list", body)
        return [parse(item, inner[1], f"{path}[{at}]") for at, item in enumerate(body)]
    if inner := re.fullmatch(r"dict\(str, (.*)\)", kind):
        expect(isinstance(body, dict), path, "an object", body)
        return {name: parse(value, inner[1], f"{path}.{name}") for name, value in body.items()}
    if kind == "object":
        return body
    if kind == "datetime":
        expect(isinstance(body, str), path, "a time", body)
        return isoparse(body)
    if kind in PRIMITIVES:
        wanted = (int, float) if kind == "float" else PRIMITIVES[kind]
        # In Python a bool is an int; on the wire it isn't.
        fits = isinstance(body, wanted) and (kind == "bool" or not isinstance(body, bool))
        expect(fits, path, kind, body)
        return body
    model = getattr(models, kind)
    expect(isinstance(body, dict), path, "an object", body)
    names = {wire: name for name, wire in model.attribute_map.items()}
    unknown = sorted(set(body) - set(names))
    if unknown:
        raise AssertionError(f"{path}: {kind} has no {', '.join(unknown)}")
    members = {
        names[wire]: parse(value, model.openapi_types[names[wire]], f"{path}.{wire}")
        for wire, value in body.items()
    }
    return model(**members)


def round_trip(body, kind):
    """The model of a body. Fails if the model does not serialize to the same body."""
    model = parse(body, kind)
    written = ApiClient().sanitize_for_serialization(model)
    if (again := in_utc(written)) != (was := in_utc(body)):
        raise AssertionError(f"{kind} changed {was} to {again}")
    return model


def in_utc(value):
    """The JSON with times converted to UTC, because the model writes +00:00 and podbeat writes Z."""
    if isinstance(value, dict):
        return {name: in_utc(member) for name, member in value.items()}
    if isinstance(value, list):
        return [in_utc(item) for item in value]
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        return isoparse(value).astimezone(datetime.timezone.utc)
    return value


def expect(fits, path, wanted, body):
    if not fits:
        raise AssertionError(f"{path}: expected {wanted}: {body!r}")

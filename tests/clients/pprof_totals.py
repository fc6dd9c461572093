"""Totals of a pprof file per sample type, read by a reader that shares nothing with the server's."""

import zlib


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            length, at = varint(data, at)
            value = data[at : at + length]
            at += length
        else:
            length = 8 if kind == 1 else 4
            value = data[at : at + length]
            at += length
        yield tag >> 3, kind, value


def unpack(data):
    return zlib.decompressobj(31).decompress(data) if data[:2] == b"\x1f\x8b" else data


def totals(data):
    strings, types, sums = [], [], None
    for number, _, value in fields(unpack(data)):
        if number == 6:
            strings.append(value.decode())
        elif number == 1:
            types.append({inner: index for inner, _, index in fields(value)})
        elif number == 2:
            values = []
            for inner, kind, content in fields(value):
                if inner == 2 and kind == 0:
                    values.append(content)
                elif inner == 2:
                    at = 0
                    while at < len(content):
                        one, at = varint(content, at)
                        values.append(one)
            sums = values if sums is None else [a + b for a, b in zip(sums, values)]
    named = [f"{strings[kind.get(1, 0)]}/{strings[kind.get(2, 0)]}" for kind in types]
    return dict(zip(named, sums or [0] * len(named)))


def push_totals(data):
    """Of a `push.v1.PushRequest`: the files of all series together."""
    sums = {}
    for number, _, series in fields(unpack(data)):
        if number != 1:
            continue
        for inner, _, sample in fields(series):
            if inner != 2:
                continue
            for field, _, content in fields(sample):
                if field == 1:
                    for name, value in totals(content).items():
                        sums[name] = sums.get(name, 0) + value
    return sums


def form_totals(data, content_type):
    """Of the field `profile` of a form."""
    boundary = b"--" + content_type.split("boundary=")[1].strip('"').encode()
    for part in data.split(boundary):
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="profile"' in head:
            return totals(content[: -len(b"\r\n")])
    return {}

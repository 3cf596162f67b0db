"""Files written and read by the rules of their formats, with NumPy alone.
SPDX-License-Identifier: MIT
"""

import gzip
import json
import struct

import numpy as np

# NumPy has no bfloat16: BF16 stands for its bits.
TYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F64": "<f8", "I8": "|i1", "U8": "|u1", "I16": "<i2",
         "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8", "BOOL": "|b1"}
NAMES = {np.dtype(code): name for name, code in TYPES.items() if name != "BF16"}


def write_safetensors(path, tensors, metadata=None, names=NAMES):
    """'names' has the name of each NumPy dtype."""
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, array in tensors.items():
        block = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(block)]}
        data += block
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def safetensors_header(path):
    """The header, and the data behind it."""
    with open(path, "rb") as file:
        content = file.read()
    length, = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length]), content[8 + length:]


def safetensors_types(path):
    """The name of each tensor's dtype."""
    header, _ = safetensors_header(path)
    return {name: entry["dtype"] for name, entry in header.items() if name != "__metadata__"}


def read_safetensors(path):
    """All tensors, and the metadata."""
    header, data = safetensors_header(path)
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


NIFTI_TYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 64: "<f8", 256: "i1", 512: "<u2"}


def write_nifti(path, volume, affine, quatern=None, qfac=1):
    """A NIfTI-1 file; 'volume' has the axes x, y, z, ... of the format.  With
    'quatern' (b, c, d) the rotation is that one, and the affine isn't there."""
    code = {np.dtype(t): c for c, t in NIFTI_TYPES.items()}[volume.dtype]
    header = bytearray(348)
    struct.pack_into("<i", header, 0, 348)
    dim = [volume.ndim] + list(volume.shape) + [1] * (7 - volume.ndim)
    struct.pack_into("<8h", header, 40, *dim)
    struct.pack_into("<hh", header, 70, code, volume.itemsize * 8)
    zooms = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(0))
    struct.pack_into("<8f", header, 76, qfac, *zooms, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[123] = 2  # mm
    struct.pack_into("<hh", header, 252, quatern is not None, quatern is None)
    struct.pack_into("<3f", header, 256, *(quatern or (0, 0, 0)))
    struct.pack_into("<12f", header, 280, *np.asarray(affine)[:3].ravel())
    header[344:348] = b"n+1\0"
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "wb") as file:
        file.write(bytes(header) + b"\0" * 4 + volume.tobytes(order="F"))


def read_nifti(path):
    """The volume (axes x, y, z, ...), its affine and its voxel sizes."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as file:
        content = file.read()
    assert struct.unpack_from("<i", content, 0)[0] == 348
    dim = struct.unpack_from("<8h", content, 40)
    code, = struct.unpack_from("<h", content, 70)
    offset, = struct.unpack_from("<f", content, 108)
    affine = np.eye(4)
    affine[:3] = np.array(struct.unpack_from("<12f", content, 280)).reshape(3, 4)
    volume = np.frombuffer(content, NIFTI_TYPES[code], offset=int(offset))
    shape = dim[1:1 + dim[0]]
    return (volume[:np.prod(shape)].reshape(shape, order="F"), affine,
            struct.unpack_from("<8f", content, 76)[1:4])


def read_png(path):
    """An 8-bit grey picture as rows of pixels."""
    import zlib
    with open(path, "rb") as file:
        content = file.read()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        body = content[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 0)
        data += body if kind == b"IDAT" else b""
        at += 12 + length
    lines, above = zlib.decompress(data), bytes(width)
    rows = []
    for y in range(height):
        line = lines[y * (width + 1):(y + 1) * (width + 1)]
        above = unfilter(line[0], line[1:], above)
        rows.append(above)
    return np.frombuffer(b"".join(rows), np.uint8).reshape(height, width).astype(np.int64)


def unfilter(kind, line, above):
    """One row of pixels; in plain integers, which Python adds faster."""
    row, left, corner = bytearray(), 0, 0
    for value, up in zip(line, above):
        guess = (0, left, up, (left + up) // 2)[kind] if kind < 4 else paeth(left, up, corner)
        left, corner = (value + guess) & 255, up
        row.append(left)
    return bytes(row)


def paeth(left, up, corner):
    estimate = left + up - corner
    return min((left, up, corner), key=lambda v: abs(estimate - v))

"""Read what W&B wrote offline; its package has no reader in Python."""

import json
import struct

BLOCK = 1 << 15
HEADER = struct.Struct('<IHB')  # checksum, length and kind of a part
FILE_HEADER = 7
LAST_PARTS = (1, 4)  # a whole record, the last part of one


def history(path):
    """Return the logged values of each step in a ``.wandb`` file.

    The file is a log of LevelDB's form: records in parts that don't cross blocks of
    32 KiB.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content, offset, record, rows = path.read_bytes(), FILE_HEADER, b'', []
    while offset + HEADER.size <= len(content):
        if BLOCK - offset % BLOCK < HEADER.size:
            offset += BLOCK - offset % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, offset)
        offset += HEADER.size
        record += content[offset : offset + length]
        offset += length
        if kind in LAST_PARTS:
            items = Record.FromString(record).history.item
            row = {i.key or '/'.join(i.nested_key): i.value_json for i in items}
            rows += [{key: json.loads(text) for key, text in row.items()}] * bool(row)
            record = b''
    return rows

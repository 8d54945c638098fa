"""Parquet's page indexes, read from the bytes of a file: pyarrow says only whether there are any.

Footers, page headers and indexes are structures of Thrift's compact protocol, which names fields by number;
here each becomes a dict of them.
"""
import struct


class Compact:
    """Reads structures of Thrift's compact protocol from bytes."""

    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def byte(self):
        self.at += 1
        return self.data[self.at - 1]

    def unsigned(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed(self):
        value = self.unsigned()
        return value >> 1 ^ -(value & 1)

    def value(self, kind, inside=False):
        if kind in (1, 2):  # in a structure the type is the value, in a list it is a byte
            return self.byte() == 1 if inside else kind == 1
        if kind == 3:
            return self.byte()
        if kind in (4, 5, 6):
            return self.signed()
        if kind == 7:
            self.at += 8
            return struct.unpack("<d", self.data[self.at - 8:self.at])[0]
        if kind == 8:
            size = self.unsigned()
            self.at += size
            return bytes(self.data[self.at - size:self.at])
        if kind in (9, 10):
            head = self.byte()
            count = self.unsigned() if head >> 4 == 15 else head >> 4
            return [self.value(head & 15, True) for _ in range(count)]
        if kind == 12:
            return self.structure()
        raise ValueError(f"type {kind} at byte {self.at}")

    def structure(self):
        fields, number = {}, 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.signed()
            fields[number] = self.value(head & 15)
        return fields


def footer(data):
    if data[:4] != b"PAR1" or data[-4:] != b"PAR1":
        raise ValueError("not a Parquet file")
    size = struct.unpack("<I", data[-8:-4])[0]
    return Compact(data, len(data) - 8 - size).structure()


def wrong_pages(path):
    """What is wrong with a file's page indexes; and for how many column chunks they were looked at."""
    with open(path, "rb") as file:
        data = file.read()
    wrong, seen = [], 0
    for number, group in enumerate(footer(data)[4]):
        for chunk in group[1]:
            column = chunk[3]
            name = f"group {number}, {b'.'.join(column[3]).decode()}"
            if 4 not in chunk:
                wrong.append(f"{name}: no offset index")
                continue
            seen += 1
            pages = Compact(data, chunk[4]).structure()[1]
            start = column.get(11, column[9])
            end = start + column[7]
            firsts, values = [], 0
            for page in pages:
                firsts.append(page[3])
                if not start <= page[1] < end:
                    wrong.append(f"{name}: a page at {page[1]}, outside of {start} to {end}")
                    continue
                reader = Compact(data, page[1])
                head = reader.structure()
                if head[1] not in (0, 3):
                    wrong.append(f"{name}: at {page[1]} is a page of type {head[1]}")
                    continue
                values += head[5 if head[1] == 0 else 8][1]
                if reader.at - page[1] + head[3] != page[2]:
                    wrong.append(f"{name}: the page at {page[1]} has {head[3]} bytes, its index says {page[2]}")
            if values != column[5]:
                wrong.append(f"{name}: pages have {values} values, the column has {column[5]}")
            if firsts[:1] != [0] or firsts != sorted(set(firsts)) or firsts[-1] >= group[3]:
                wrong.append(f"{name}: pages begin at rows {firsts[:5]} of {group[3]}")
            if pages and pages[0][1] != column[9]:
                wrong.append(f"{name}: the first page is at {pages[0][1]}, the column says {column[9]}")
            if 6 not in chunk:
                continue
            index = Compact(data, chunk[6]).structure()
            if {len(index[at]) for at in (1, 2, 3)} != {len(pages)}:
                wrong.append(f"{name}: a column index for another number of pages than {len(pages)}")
            nulls = column.get(12, {}).get(3)
            if 5 in index and nulls is not None and sum(index[5]) != nulls:
                wrong.append(f"{name}: pages have {sum(index[5])} nulls, the column has {nulls}")
    return wrong, seen

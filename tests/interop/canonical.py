"""One text for a row, whichever engine read it.

- integers and booleans as JSON has them; a float32 widens to the double of the same value;
- "NaN", "Infinity", "-Infinity" for what JSON has no number for;
- decimals as strings with all digits of their scale; UUIDs as strings; binary and fixed as "0x" and hex;
- "2013-01-01", "05:00:00.000000", "2013-01-01T05:00:00.000000"; with a zone, in UTC with "Z" behind;
  nine digits where the type has nanoseconds;
- structs as objects, lists as arrays, maps as arrays of [key, value] in the order of their keys.

A row is an object in the order of its columns. Rows are printed sorted by their text, one a line, so
that two outputs hold the same rows exactly when they are the same text.
"""
import json
import math
import sys
import uuid

import pyarrow as pa

PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def civil_date(days):
    """Days since 1970 as year-month-day, also where Python's own dates end.

    Counts from 1 March of the year 0, so that a leap day is the last day of its year.
    """
    days += 719468
    era, day_of_era = divmod(days, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    year = year_of_era + era * 400 + (month <= 2)
    text = f"{year:04d}" if 0 <= year <= 9999 else f"{year:+05d}"
    return f"{text}-{month:02d}-{day:02d}"


def clock(count, unit):
    """A count of units since midnight, with six digits of a second, or nine for nanoseconds."""
    seconds, fraction = divmod(count, PER_SECOND[unit])
    digits = 9 if unit == "ns" else 6
    fraction = fraction * 10**digits // PER_SECOND[unit]
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{fraction:0{digits}d}"


def moment(count, unit):
    day, rest = divmod(count, 86400 * PER_SECOND[unit])
    return f"{civil_date(day)}T{clock(rest, unit)}"


def floating(value):
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def canonical(scalar):
    """The JSON value of one Arrow scalar."""
    kind = scalar.type
    # Before the null test: Arrow's uuid is an extension over fixed(16), which DuckDB's arrow lacks.
    if isinstance(kind, pa.BaseExtensionType):
        if not scalar.is_valid:
            return None
        raw = scalar.value.as_py()
        return str(uuid.UUID(bytes=raw)) if kind.extension_name == "arrow.uuid" else canonical(scalar.value)
    if not scalar.is_valid:
        return None
    if pa.types.is_struct(kind):
        return {kind.field(i).name: canonical(scalar[i]) for i in range(kind.num_fields)}
    if pa.types.is_map(kind):
        pairs = [[canonical(entry[0]), canonical(entry[1])] for entry in scalar.values]
        return sorted(pairs, key=lambda pair: pair[0] if isinstance(pair[0], (int, str)) else json.dumps(pair[0]))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return [canonical(item) for item in scalar.values]
    if pa.types.is_dictionary(kind):
        return canonical(scalar.value)
    if pa.types.is_floating(kind):
        return floating(scalar.as_py())
    if pa.types.is_decimal(kind):
        return format(scalar.as_py(), "f")
    if pa.types.is_date32(kind):
        return civil_date(scalar.value)
    if pa.types.is_time(kind):
        return clock(scalar.value, kind.unit)
    if pa.types.is_timestamp(kind):
        return moment(scalar.value, kind.unit) + ("Z" if kind.tz else "")
    value = scalar.as_py()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise TypeError(f"no canonical form for the Arrow type {kind}")


def canonical_lines(table):
    """The rows of an Arrow table as sorted lines of JSON."""
    columns = [(name, table.column(i)) for i, name in enumerate(table.column_names)]
    rows = ({name: canonical(column[at]) for name, column in columns} for at in range(table.num_rows))
    return sorted(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)


def print_rows(table):
    sys.stdout.reconfigure(encoding="utf-8")
    for line in canonical_lines(table):
        print(line)


def require_same(got, want, what):
    """Ends the program, naming the first rows that differ, unless both are the same lines."""
    if got == want:
        return
    extra = [line for line in got if line not in want][:3]
    missing = [line for line in want if line not in got][:3]
    sys.exit("\n".join([f"{what}: {len(got)} rows, want {len(want)}"]
                       + [f"  got  {line}" for line in extra] + [f"  want {line}" for line in missing]))


def main_guard(main):
    """Runs `main`; what goes wrong becomes one clear line and exit code 1."""
    try:
        main()
    except Exception as error:  # the caller is a test: it wants the message, not the frames
        sys.exit(f"{sys.argv[0].rsplit('/', 1)[-1]}: {type(error).__name__}: {error}")

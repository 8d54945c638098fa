#!/usr/bin/env python3
"""The shell as a person has it, on a pseudo-terminal, and `icefield sql` as a program has it, on pipes.

    shell.py ICEFIELD_BINARY [--only REGEX] [--list]

Each case proves one sentence about the shell. A case that fails is printed with what failed and with the
screen as it was; the last line is 'N passed, N failed'. Only the standard library is needed.
"""
import argparse
import csv
import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import traceback

from terminal import COLOUR, PASTE, Terminal

CASES = []
# Never ends: a million times a million times a million rows.
ENDLESS = ("SELECT sum((a.value * b.value + c.value) % 7) FROM generate_series(1, 1000000) a "
           "CROSS JOIN generate_series(1, 1000000) b CROSS JOIN generate_series(1, 1000000) c;")
# The line that tells of a running query: a turning sign, and for how long.
PROGRESS = re.compile(r"^\S \d+s", re.M)
SETUP = """
CREATE TABLE raw.flights (carrier STRING, dep_delay INT, arrival_airport STRING);
INSERT INTO raw.flights VALUES ('AA', 5, 'BOS'), ('UA', -3, 'SFO'), ('DL', NULL, 'a|b, "c"');
INSERT INTO raw.flights VALUES ('WN', 12, 'LAX');
CREATE TABLE raw.fares (price DECIMAL(10, 2), carrier STRING);
INSERT INTO raw.fares VALUES (19.99, 'AA');
CREATE TABLE cleaned.orders (order_id BIGINT, total DOUBLE);
CREATE NAMESPACE sandbox;
"""


def case(function):
    """A case's name is its function's, and its sentence the docstring."""
    CASES.append(function)
    return function


def same(found, wanted, what=""):
    assert found == wanted, f"{what + ': ' if what else ''}found {found!r}, wanted {wanted!r}"


def has(text, *parts):
    for part in parts:
        assert part in text, f"{part!r} is not in\n{text}"


def lacks(text, *parts):
    for part in parts:
        assert part not in text, f"{part!r} is in\n{text}"


class Home:
    """A user's home with a warehouse that all cases read, and what a case leaves behind."""

    def __init__(self, binary):
        self.binary = os.path.abspath(binary)
        self.folder = os.path.realpath(tempfile.mkdtemp(prefix="icefield-shell-"))
        self.terminals, self.number = [], 0
        self.case = self.folder
        self.new_case()
        self.program(["-c", SETUP], code=0)

    def new_case(self):
        """A new folder for state and files, so that no case sees another's history."""
        self.number += 1
        self.case = os.path.join(self.folder, f"case-{self.number}")
        os.mkdir(self.case)
        self.terminals = []

    def path(self, *parts):
        return os.path.join(self.case, *parts)

    def env(self, **more):
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith(("ICEFIELD_", "XDG_")) and name not in ("NO_COLOR", "PAGER", "LESS")}
        env = {**kept, "HOME": self.case, "XDG_STATE_HOME": self.path("state"), "TERM": "xterm-256color",
               "LANG": "C.UTF-8", "ICEFIELD_WAREHOUSE": os.path.join(self.folder, "warehouse"), "PAGER": "", **more}
        return {name: value for name, value in env.items() if value is not None}

    def start(self, *args, columns=100, rows=30, **env):
        """The program on a terminal, not waited for."""
        made = Terminal([self.binary, "sql", *args], self.env(**env), self.case, columns, rows)
        self.terminals.append(made)
        return made

    def shell(self, **options):
        """The shell, at its first prompt."""
        made = self.start(**options)
        made.ready()
        return made

    def program(self, args, stdin="", code=None, **env):
        """The program on pipes: what it wrote, its errors and its exit code."""
        done = subprocess.run([self.binary, "sql", *args], input=stdin, capture_output=True, text=True, cwd=self.case,
                              env=self.env(**env), timeout=60)
        if code is not None:
            assert done.returncode == code, f"{args}: code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout, done.stderr, done.returncode

    def value(self, sql):
        out, _, _ = self.program(["--format", "json", "-c", sql], code=0)
        return [list(row.values()) for row in json.loads(out)]

    def history(self):
        with open(self.path("state", "icefield", "history")) as file:
            return file.read()

    def pager(self, name="pager"):
        """A pager that writes down how it was called and what it was given, and shows where it was."""
        path = self.path(name)
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{path}.args"\ncat > "{path}.text"\necho "paged by {name}"\n')
        os.chmod(path, 0o755)
        return path


def read(path):
    with open(path) as file:
        return file.read()


def cursor_line(shell):
    """The line that is typed on."""
    return "".join(shell.screen.lines[shell.screen.row]).rstrip()


def completes(shell, typed, *wanted, tabs=1):
    """Typing a text and Tab leads to the wanted texts, one a Tab; then the line is cleared."""
    shell.type(typed)
    for text in wanted:
        shell.key(*["tab"] * tabs)
        shell.until(lambda: cursor_line(shell) == f"{shell.prompt} {text}", f"{text!r} by Tab")
    reads = shell.reads()
    shell.key("ctrl-c")
    shell.ready(reads)


def marked(text):
    """The texts that carets stand below, by columns of the screen."""
    lines, found = text.split("\n"), []
    for above, below in zip(lines, lines[1:]):
        mark = re.fullmatch(r"[ |]*?(\^+) *", below)
        if mark:
            cells = [cell for letter in above for cell in ([letter, ""] if ord(letter) > 0x2e80 else [letter])]
            found.append("".join(cells[mark.start(1):mark.end(1)]))
    return found


# Lines and history


@case
def greets_and_runs(home):
    """The shell greets, says how to get help and to leave, runs a statement and shows how many rows it had."""
    with home.shell() as shell:
        has(shell.screen.text(), "icefield", "\\?", "\\q")
        has(shell.run("SELECT carrier FROM raw.flights ORDER BY 1 LIMIT 1;"), " carrier\n", " AA\n", "(1 row)")


@case
def leaves(home):
    r"""\q, exit, quit (with a semicolon or not) and Ctrl-D leave with code 0."""
    for text in ["\\q\r", "exit\r", "quit;\r", "\x04"]:
        with home.shell() as shell:
            shell.send(text)
            same(shell.ends(), 0, repr(text))


@case
def ctrl_d_on_text_stays(home):
    """Ctrl-D on a half-typed statement does not leave."""
    with home.shell() as shell:
        shell.type("SELECT 41 + 1")
        shell.key("ctrl-d")
        has(shell.run(";"), "42")


@case
def history_in_a_session(home):
    """Up brings back the last statement, and again the one before."""
    with home.shell() as shell:
        shell.run("SELECT 11 AS first_one;")
        shell.run("SELECT 22 AS second_one;")
        row = shell.screen.row
        shell.key("up", "up")
        shell.expect("SELECT 11", row)
        has(shell.run(""), "first_one", "11\n")


@case
def history_survives(home):
    """History is there after a restart, even after the shell was killed, and is searched with Ctrl-R."""
    with home.shell() as shell:
        shell.run("SELECT 33 AS kept;")
        shell.run("SELECT 44 AS later;")
    with home.shell() as shell:
        row = shell.screen.row
        shell.key("up")
        shell.expect("SELECT 44 AS later;", row)
        reads = shell.reads()
        shell.key("ctrl-c")
        shell.ready(reads)
        row = shell.screen.row
        shell.key("ctrl-r")
        shell.send("AS kep")
        shell.expect("SELECT 33 AS kept;", row)
        has(shell.run(""), "33\n")


@case
def history_of_two_shells(home):
    """Two shells at once both keep their lines."""
    with home.shell() as one, home.shell() as two:
        one.run("SELECT 1 AS of_one;")
        two.run("SELECT 2 AS of_two;")
        one.run("SELECT 3 AS of_one_again;")
    has(home.history(), "of_one;", "of_two;", "of_one_again;")


@case
def history_of_many_lines(home):
    """A statement of several lines comes back as a whole after a restart."""
    with home.shell() as shell:
        shell.send("SELECT 55\r+ 1\r")
        has(shell.run("AS many;"), "many", "56\n")
    with home.shell() as shell:
        row = shell.screen.row
        shell.key("up")
        shell.expect("AS many;", row)
        has(shell.screen.text(row), "SELECT 55", "+ 1")
        has(shell.run(""), "many", "56\n")


@case
def history_keeps_no_secrets(home):
    """Statements with passwords, secrets and tokens, URLs with a password, and lines that begin with a space run
    but are not kept; the file is the user's own."""
    with home.shell() as shell:
        shell.run("SELECT 1 AS kept;")
        has(shell.run(" SELECT 2 AS spaced;"), "spaced")
        has(shell.run("SELECT 'x' AS \"my_Password\";"), "my_Password")
        has(shell.run("SELECT 'x' AS secret_key;"), "secret_key")
        has(shell.run("SELECT 'postgres://me:hunter2@host/db' AS url;"), "url")
        has(shell.run("SELECT 'postgres://me@host/db' AS harmless;"), "harmless")
    has(home.history(), "AS kept;", "AS harmless;")
    lacks(home.history(), "spaced", "my_Password", "secret_key", "hunter2")
    mode = os.stat(home.path("state", "icefield", "history")).st_mode
    same(stat.S_IMODE(mode) & 0o077, 0, "others may read the history")


@case
def many_lines(home):
    """A statement goes on over lines until its semicolon; one within quotes or a comment does not end it."""
    with home.shell() as shell:
        row = shell.screen.row
        shell.send("SELECT 'a;b' AS text -- not here;\r")
        shell.expect("not here;", row)
        shell.send(", 60 + 6 AS number\r")
        shell.expect("number", row)
        lacks(shell.screen.text(row), "(1 row)", "error")
        has(shell.run(";"), "a;b", "66", "(1 row)")


@case
def several_statements_on_a_line(home):
    """Several statements on a line all run, up to the one that fails."""
    with home.shell() as shell:
        shown = shell.run("SELECT 1 AS aa; SELECT nothing AS bb; SELECT 3 AS cc;")
        has(shown, "aa\n", "no column `nothing`")
        lacks(shown, "(1 row)\n cc", " cc\n")


@case
def pasting(home):
    """A pasted script of several lines runs after Enter, and tabs in it complete nothing."""
    with home.shell() as shell:
        shown = shell.run(PASTE.format("SELECT 70 + 7 AS aa;\nSELECT\t'x'\tAS\tbb;"))
        has(shown, "77\n", " bb\n")


# Colours


@case
def colours_while_typing(home):
    """Keywords, texts, numbers and comments each have a colour of their own while typing."""
    with home.shell() as shell:
        start = len(shell.raw)
        shell.type("SELECT 'text', 123 AS plain -- remark")
        raw = shell.raw[start:].decode()
        codes = {}
        for word in ["SELECT", "'text'", "123", "-- remark"]:
            found = re.search(r"\x1b\[([0-9;]+)m" + re.escape(word) + r"\x1b\[0?m", raw)
            assert found, f"{word} has no colour: {raw!r}"
            codes[word] = found.group(1)
        same(len(set(codes.values())), 4, str(codes))
        assert not re.search(r"m'?plain\x1b", raw), "a plain word has a colour"


@case
def no_colours_if_not_wanted(home):
    """With NO_COLOR nothing has a colour: typing, results, errors."""
    with home.shell(NO_COLOR="1") as shell:
        shell.run("SELECT 'text', 123 -- remark\r;")
        has(shell.run("SELECT carier FROM raw.flights;"), "error:")
        same(COLOUR.findall(shell.raw), [])
    with home.shell() as shell:
        shell.run("SELECT carier FROM raw.flights;")
        has(shell.raw.decode(), "\x1b[1;31merror:")


# Completion


@case
def completes_keywords(home):
    """Tab completes a keyword, in the case that was begun."""
    with home.shell() as shell:
        completes(shell, "SEL", "SELECT")
        completes(shell, "sel", "select")
        completes(shell, "CREATE TABLE x (a INT) PARTITIONE", "CREATE TABLE x (a INT) PARTITIONED")


@case
def completes_namespaces(home):
    """Tab completes a namespace, also one without tables."""
    with home.shell() as shell:
        completes(shell, "USE sand", "USE sandbox")
        completes(shell, "\\dt sand", "\\dt sandbox")
        completes(shell, "SHOW TABLES IN clea", "SHOW TABLES IN cleaned")
        completes(shell, "CREATE TABLE sand", "CREATE TABLE sandbox.")


@case
def completes_tables(home):
    """Tab completes a table after FROM, JOIN, INTO, UPDATE and backslash commands, each fit in turn."""
    with home.shell() as shell:
        completes(shell, "SELECT * FROM raw.fl", "SELECT * FROM raw.flights")
        completes(shell, "SELECT * FROM raw.f", "SELECT * FROM raw.fares", "SELECT * FROM raw.flights")
        completes(shell, "SELECT * FROM raw.fares JOIN cleaned.o", "SELECT * FROM raw.fares JOIN cleaned.orders")
        completes(shell, "INSERT INTO raw.fl", "INSERT INTO raw.flights")
        completes(shell, "UPDATE raw.fl", "UPDATE raw.flights")
        completes(shell, "\\d raw.fl", "\\d raw.flights")


@case
def completes_columns(home):
    """Tab completes a column, also after an alias."""
    with home.shell() as shell:
        completes(shell, "SELECT arriv", "SELECT arrival_airport")
        completes(shell, "SELECT carrier FROM raw.flights WHERE dep_", "SELECT carrier FROM raw.flights WHERE dep_delay")
        completes(shell, "SELECT f.dep_", "SELECT f.dep_delay")


@case
def completes_snapshots(home):
    """Tab after FOR VERSION AS OF completes the snapshots of the table that is named, newest first."""
    ids = [str(row[0]) for row in home.value("SELECT snapshot_id FROM raw.flights.history ORDER BY made_current_at DESC")]
    same(len(ids), 2)
    with home.shell() as shell:
        start = "SELECT count(*) FROM raw.flights FOR VERSION AS OF "
        completes(shell, start, *[start + it for it in ids])
        shell.type(start + ids[1][:-4])
        shell.key("tab")
        shell.until(lambda: cursor_line(shell).endswith(ids[1]), "the whole id")
        has(shell.run(";"), " 3\n")
        (fare,), = home.value("SELECT snapshot_id FROM raw.fares.history")
        start = "SELECT * FROM raw.fares FOR VERSION AS OF "
        completes(shell, start, f"{start}{fare}")


@case
def completes_what_was_made(home):
    """A table that was just made is completed, and one that was dropped no more."""
    with home.shell() as shell:
        shell.run("CREATE TABLE sandbox.brand_new (a_new_column INT);")
        completes(shell, "SELECT * FROM sandbox.br", "SELECT * FROM sandbox.brand_new")
        completes(shell, "SELECT a_ne", "SELECT a_new_column")
        shell.run("DROP TABLE sandbox.brand_new;")
        shell.type("SELECT * FROM sandbox.br")
        shell.key("tab")
        lacks(shell.run(";"), "brand_new;")


# Backslash commands


@case
def tells_tables(home):
    r"""\d and \dt list the tables, \dt NAMESPACE those of one, \d TABLE its columns, \dn the namespaces."""
    with home.shell() as shell:
        for command in ["\\d", "\\dt"]:
            has(shell.run(command), "flights", "fares", "orders")
        shown = shell.run("\\dt raw")
        has(shown, "flights", "fares")
        lacks(shown, "orders")
        has(shell.run("\\d raw.flights"), "carrier", "dep_delay", "arrival_airport", "int")
        has(shell.run("\\d raw.flights;"), "dep_delay")
        has(shell.run("\\dn"), "raw", "cleaned", "sandbox")
        has(shell.run("\\d raw.fligths"), "no table", "did you mean `raw.flights`?")


@case
def tells_times(home):
    r"""\timing shows how long statements take, until it is typed again; `\timing off` and `on` do as they say."""
    time_line = re.compile(r"^Time: [0-9.]+ m?s$", re.M)
    with home.shell() as shell:
        assert not time_line.search(shell.run("SELECT 1;"))
        has(shell.run("\\timing"), "Timing is on.")
        same(len(time_line.findall(shell.run("SELECT 1; SELECT 2;"))), 2)
        has(shell.run("\\timing on"), "Timing is on.")
        has(shell.run("\\timing off"), "Timing is off.")
        assert not time_line.search(shell.run("SELECT 1;"))


@case
def expands(home):
    r"""\x shows each column on a line of its own, until it is typed again; `\x on` and `off` do as they say."""
    query = "SELECT carrier, dep_delay FROM raw.flights ORDER BY 1 LIMIT 2;"
    with home.shell() as shell:
        has(shell.run("\\x"), "Expanded display is on.")
        has(shell.run(query), "RECORD 1", "RECORD 2", "carrier   | AA\n", "dep_delay | 5\n", "(2 rows)")
        has(shell.run("\\x on"), "Expanded display is on.")
        has(shell.run("\\x off"), "Expanded display is off.")
        lacks(shell.run(query), "RECORD")


@case
def changes_the_format(home):
    r"""\format changes how results are shown, and says which names there are if it is none."""
    with home.shell() as shell:
        shell.run("\\format ndjson")
        has(shell.run("SELECT 7 AS n;"), '{"n": 7}')
        shell.run("\\format csv")
        has(shell.run("SELECT 7 AS n, 'a,b' AS t;"), 'n,t\n7,"a,b"')
        shell.run("\\format markdown")
        has(shell.run("SELECT 7 AS n;"), "| n |\n| ---: |\n| 7 |")
        shell.run("\\format json")
        shown = shell.run("SELECT 7 AS n;")
        same(json.loads(shown[shown.index("["):]), [{"n": 7}])
        has(shell.run("\\format xml"), "`xml` is no format")


@case
def helps(home):
    r"""\? tells of every backslash command there is, and an unknown one leads there."""
    with home.shell() as shell:
        shown = shell.run("\\?")
        for command in ["\\d ", "\\d TABLE", "\\dt", "\\dn", "\\timing", "\\x", "\\format", "\\?", "\\q"]:
            has(shown, command)
        has(shell.run("\\nonsense"), "no command \\nonsense", "\\?")


# Ctrl-C


@case
def cancels_a_query(home):
    """Ctrl-C ends a query that computes, and the shell goes on with the next; twice in a row."""
    with home.shell() as shell:
        for number in [91, 92]:
            reads, row = shell.reads(), shell.screen.row
            shell.send(ENDLESS + "\r")
            shell.until(lambda: PROGRESS.search(shell.screen.text(row)), "progress")
            shell.key("ctrl-c")
            shell.ready(reads)
            has(shell.screen.text(row), "cancelled")
            lacks(shell.screen.text(row), "(0 rows)", "(1 row)")
            assert not PROGRESS.search(shell.screen.text(row)), "progress is left on the screen"
            has(shell.run(f"SELECT {number} AS next;"), f"{number}\n")


@case
def cancels_other_work(home):
    """Ctrl-C ends a query that gives rows without end, a sort, and a write, of which nothing is left."""
    with home.shell() as shell:
        shell.run("CREATE TABLE sandbox.half (value BIGINT);")
        for query in [
            "SELECT a.value, b.value FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b;",
            f"SELECT * FROM ({ENDLESS[:-1]}) ORDER BY 1;",
            "INSERT INTO sandbox.half SELECT a.value FROM generate_series(1, 1000000) a "
            "CROSS JOIN generate_series(1, 1000000) b;",
        ]:
            reads, row = shell.reads(), shell.screen.row
            shell.send(query + "\r")
            shell.until(lambda: PROGRESS.search(shell.screen.text(row)), f"progress of {query}")
            shell.key("ctrl-c")
            shell.ready(reads)
            has(shell.screen.text(row), "cancelled")
        has(shell.run("SELECT count(*) FROM sandbox.half;"), " 0\n")
        shell.run("DROP TABLE sandbox.half;")


@case
def cancels_the_rest_of_a_line(home):
    """Ctrl-C on the first of several statements leaves the others undone."""
    with home.shell() as shell:
        reads, row = shell.reads(), shell.screen.row
        shell.send(f"{ENDLESS} SELECT 5 AS never_shown;\r")
        shell.until(lambda: PROGRESS.search(shell.screen.text(row)), "progress")
        shell.key("ctrl-c")
        shell.ready(reads)
        lacks(shell.screen.text(row), "(1 row)")


@case
def clears_what_is_half_typed(home):
    """Ctrl-C on a half-typed statement, of one line or more, clears it and runs nothing."""
    with home.shell() as shell:
        for text in ["SELECT 1 AS half", "SELECT 'an open text\rand more"]:
            reads = shell.reads()
            shell.send(text)
            shell.expect(text[-8:])
            shell.key("ctrl-c")
            shell.ready(reads)
            shown = shell.run("SELECT 93 AS whole;")
            has(shown, "whole", "93\n")
            lacks(shown, "half", "error")


@case
def ctrl_c_on_nothing_stays(home):
    """Ctrl-C on an empty line, however often, does not leave."""
    with home.shell() as shell:
        for _ in range(3):
            reads = shell.reads()
            shell.key("ctrl-c")
            shell.ready(reads)
        has(shell.run("SELECT 94;"), "94\n")


# Pager and width


@case
def pages_wide_results(home):
    """A result wider or longer than the terminal goes through $PAGER with its arguments, uncut; others do not."""
    wide = "SELECT '" + "w" * 60 + "' AS a, '" + "v" * 60 + "' AS b;"
    path = home.pager()
    with home.shell(PAGER=f"{path} --with args") as shell:
        lacks(shell.run("SELECT 'short';"), "paged by")
        has(shell.run(wide), "paged by pager")
        same(read(path + ".args"), "--with\nargs\n")
        has(read(path + ".text"), "w" * 60 + " | " + "v" * 60, "(1 row)")
        has(shell.run("SELECT value FROM generate_series(1, 200);"), "paged by pager")
        has(read(path + ".text"), " 200\n(200 rows)")
        lacks(shell.run("SELECT value FROM generate_series(1, 20);"), "paged by")
        has(shell.run("SELECT 95 AS after;"), "95\n")


@case
def pages_by_the_terminals_size(home):
    """What is paged on 40 columns is not on 200, also if the window changes while the shell runs."""
    query = "SELECT '" + "w" * 60 + "' AS a;"
    path = home.pager()
    with home.shell(PAGER=path, columns=200) as shell:
        lacks(shell.run(query), "paged by")
        shell.resize(40)
        has(shell.run(query), "paged by")
        shell.resize(200)
        lacks(shell.run(query), "paged by")


@case
def pages_with_less(home):
    """Without $PAGER it is less, told not to wrap lines and to keep the screen; empty, or not there, there is none."""
    wide = "SELECT '" + "w" * 90 + "' AS a, '" + "v" * 90 + "' AS b;"
    path = home.pager("less")
    with home.shell(PAGER=None, PATH=f"{home.case}:{os.environ['PATH']}") as shell:
        has(shell.run(wide), "paged by less")
        assert re.search(r"^-\w*S", read(path + ".args"), re.M), "lines are wrapped"
        has(read(path + ".text"), "w" * 90 + " | " + "v" * 90)
    for pager in ["", "/there/is/no/such-pager"]:
        with home.shell(PAGER=pager, columns=200) as shell:
            has(shell.run("SELECT value FROM generate_series(1, 60);"), "(60 rows)")


@case
def goes_on_after_the_pager(home):
    """A pager that leaves before it read everything, or at Ctrl-C, is no error, and the shell goes on."""
    with home.shell(PAGER="true") as shell:
        lacks(shell.run("SELECT value, repeat('x', 50) FROM generate_series(1, 20000);"), "error", "(20000 rows)")
        has(shell.run("SELECT 96;"), "96\n")
    with home.shell(PAGER="sleep 1000") as shell:
        reads = shell.reads()
        shell.send("SELECT value FROM generate_series(1, 100);\r")
        # The pager is there once it has a process.
        shell.until(lambda: children(shell.pid), "the pager")
        shell.key("ctrl-c")
        shell.ready(reads)
        has(shell.run("SELECT 97;"), "97\n")


def children(pid):
    """The processes that a process started."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(name))
        except (OSError, ValueError):
            pass
    return found


@case
def keeps_to_the_width(home):
    """-c on a terminal cuts tables to its width, with a sign, and cuts nothing where there is room."""
    query = "SELECT '" + "w" * 70 + "' AS a, '" + "v" * 70 + "' AS b"
    for columns in [40, 200]:
        with home.start("-c", query, columns=columns) as terminal:
            same(terminal.ends(), 0)
            text = terminal.screen.text()
            same(len(text.split("\n")), 4, f"lines on {columns} columns")
            same("…" in text, columns == 40, "cut")
            same("w" * 70 + " | " + "v" * 70 in text, columns == 200, "whole")


# Progress


@case
def shows_progress(home):
    """A query that takes long shows for how long it runs and what it read, and nothing of it is left."""
    rows = 1000
    with home.shell() as shell:
        while True:
            row, start = shell.screen.row, len(shell.raw)
            shown = shell.run(f"SELECT sum((a.value * b.value) % 7) AS total FROM generate_series(1, {rows}) a "
                              f"CROSS JOIN generate_series(1, {rows}) b;")
            assert not PROGRESS.search(shown), "progress is left on the screen"
            has(shown, "total\n", "(1 row)")
            if re.search(rb"\b1s", shell.raw[start:]):
                return
            # This machine is faster than that.
            rows *= 2


@case
def quick_queries_have_no_progress(home):
    """A quick query shows no progress."""
    with home.shell() as shell:
        start = len(shell.raw)
        shell.run("SELECT 1;")
        assert not re.search(rb"\b0s", shell.raw[start:]), shell.raw[start:]


# Errors


@case
def marks_mistakes(home):
    """An error names the table or column, marks it in its line and says what may have been meant; the shell goes on."""
    with home.shell() as shell:
        for query, place, message, hint in [
            ("SELECT * FROM raw.fligths;", "fligths", "no table `raw.fligths`", "did you mean `raw.flights`?"),
            ("SELECT carier FROM raw.flights;", "carier", "no column `carier`", "did you mean carrier?"),
            ("SELECT 1 AS a; SELECT dep_dellay FROM raw.flights;", "dep_dellay", "no column", "did you mean dep_delay?"),
            ("SELECT 1\rFROM raw.flights\rWHERE cariier = 'x';", "cariier", "no column", "did you mean carrier?"),
            ("SELECT carrier FROM raw.flights WHERE\tdep_delai > 1;", "dep_delai", "no column", "dep_delay?"),
            ("SELECT '日本' AS a, carier FROM raw.flights;", "carier", "no column", "did you mean carrier?"),
            ("INSERT INTO raw.fairs VALUES (1, 'x');", "fairs", "no table", "did you mean `raw.fares`?"),
        ]:
            shown = shell.run(PASTE.format(query) if "\t" in query else query)
            has(shown, "error:", message, hint)
            same(marked(shown), [place], query)
        shown = shell.run("SELECT 1 FROM FROM raw.flights;")
        has(shown, "error:")
        same(len(marked(shown)), 1, "marks of a statement that cannot be read")
        has(shell.run("SELECT 98;"), "98\n")


@case
def marks_mistakes_in_narrow_terminals(home):
    """The mark stands below the mistake though the statement is wider than the terminal."""
    for columns in [40, 200]:
        with home.shell(columns=columns) as shell:
            query = "SELECT carrier, dep_delay, arrival_airport, carier FROM raw.flights WHERE dep_delay > 1;"
            same(marked(shell.run(query)), ["carier"], f"{columns} columns")


# Programs


@case
def plain_for_programs(home):
    """On pipes there are no colours, prompts or progress, and tables are not cut."""
    for args, stdin in [(["-c", "SELECT 1 AS n"], ""), ([], "SELECT 1 AS n;\n"), (["-f", "-"], "SELECT 1 AS n;\n")]:
        same(home.program(args, stdin, code=0), (" n\n---\n 1\n(1 row)\n", "", 0), str(args))
    out, _, _ = home.program(["-c", "SELECT '" + "w" * 300 + "' AS a"], code=0, COLUMNS="40")
    has(out, "w" * 300)
    _, error, _ = home.program(["-c", "SELECT carier FROM raw.flights"], code=1)
    has(error, "error: no column `carier`", "^^^^^^", "hint: did you mean carrier?")
    lacks(error, "\x1b")


@case
def no_progress_for_programs(home):
    """A long query on pipes shows no progress; an interrupt ends it with code 1 and a word."""
    child = subprocess.Popen([home.binary, "sql", "-c", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, cwd=home.case, env=home.env())
    # Longer than a terminal waits for its first sign of progress.
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=30)
    same((out, error, child.returncode), ("", "error: cancelled\n", 1))


@case
def formats_are_read_back(home):
    """Every format has all rows: JSON and NDJSON as values, CSV with quotes, Markdown and tables with their cells."""
    query = "SELECT carrier, dep_delay, arrival_airport FROM raw.flights ORDER BY carrier"
    rows = [["AA", 5, "BOS"], ["DL", None, 'a|b, "c"'], ["UA", -3, "SFO"], ["WN", 12, "LAX"]]
    names = ["carrier", "dep_delay", "arrival_airport"]
    out = {name: home.program(["--format", name, "-c", query], code=0)[0]
           for name in ["table", "json", "ndjson", "csv", "markdown"]}
    same([list(it.items()) for it in json.loads(out["json"])], [list(zip(names, it)) for it in rows])
    same([list(json.loads(it).values()) for it in out["ndjson"].splitlines()], rows)
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    same(list(csv.reader(io.StringIO(out["csv"]))), [names, *texts])
    cells = lambda line, mark: [it.strip() for it in re.split(mark, line)]
    lines = out["markdown"].splitlines()
    same(cells(lines[0], r"\|")[1:-1], names)
    same([set(it) - set("-:") for it in cells(lines[1], r"\|")[1:-1]], [set()] * 3)
    same([[it.replace("\\|", "|") for it in cells(line, r"(?<!\\)\|")[1:-1]] for line in lines[2:]], texts)
    lines = out["table"].splitlines()
    same([cells(it, r" \| ") for it in lines[2:-1]], texts)
    same(lines[-1], "(4 rows)")
    empty = query.replace("ORDER", "WHERE false ORDER")
    same(json.loads(home.program(["--format", "json", "-c", empty], code=0)[0]), [])
    same(home.program(["--format", "ndjson", "-c", empty], code=0)[0], "")
    same(home.program(["--format", "csv", "-c", empty], code=0)[0], ",".join(names) + "\n")


@case
def difficult_texts_are_read_back(home):
    """Line ends, quotes, control letters and wide letters come back from JSON and CSV as they went in."""
    text = 'a\nb\r\n"c"\t\\ \x01 日本 é 😀'
    escaped = text.replace("'", "''")
    query = f"SELECT '{escaped}' AS t, 1 AS n"
    same(json.loads(home.program(["--format", "json", "-c", query], code=0)[0]), [{"t": text, "n": 1}])
    same(json.loads(home.program(["--format", "ndjson", "-c", query], code=0)[0]), {"t": text, "n": 1})
    raw = subprocess.run([home.binary, "sql", "--format", "csv", "-c", query], capture_output=True, cwd=home.case,
                         env=home.env(), check=True).stdout.decode()
    same(list(csv.reader(io.StringIO(raw, newline=""))), [["t", "n"], [text, "1"]])


@case
def several_commands_and_files(home):
    """-c may be given often, -f too, and all run in one session; -f - is standard input."""
    for name, text in [("a.sql", "SELECT 3 AS n; -- a remark; with a semicolon\nSELECT 4 AS n"),
                       ("b.sql", "SELECT 5\n  AS n;\n")]:
        with open(home.path(name), "w") as file:
            file.write(text)
    rows = lambda args, stdin="": [json.loads(it).get("n") for it in
                                   home.program(["--format", "ndjson", *args], stdin, code=0)[0].splitlines()]
    same(rows(["-c", "SELECT 1 AS n", "-c", "SELECT 2 AS n; SELECT 3 AS n"]), [1, 2, 3])
    same(rows(["-f", home.path("a.sql"), "-f", home.path("b.sql")]), [3, 4, 5])
    same(rows(["-f", "-"], "SELECT 6 AS n;\nSELECT\n7 AS n"), [6, 7])
    same(rows([], "SELECT 6 AS n; SELECT 7 AS n;\n\nSELECT 8 AS n"), [6, 7, 8])
    same(rows(["-c", "USE raw", "-c", "SELECT count(*) AS n FROM flights"])[-1], 4)
    same(rows([]), [])


@case
def answers_a_program_that_waits(home):
    """A statement on standard input is answered before the input ends."""
    child = subprocess.Popen([home.binary, "sql", "--format", "ndjson"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                             text=True, cwd=home.case, env=home.env())
    try:
        for number in [1, 2]:
            child.stdin.write(f"SELECT {number}\nAS n;\n")
            child.stdin.flush()
            same(json.loads(child.stdout.readline()), {"n": number})
        child.stdin.close()
        same(child.wait(30), 0)
    finally:
        child.kill()
        child.wait()


@case
def stops_at_the_first_error(home):
    """The first error ends -c, -f and standard input with code 1; what was before it is there, what is after is not."""
    script = "SELECT 1 AS n;\nSELECT nothing;\nSELECT 3 AS n;\n"
    with open(home.path("bad.sql"), "w") as file:
        file.write(script)
    for args, stdin in [(["-c", "SELECT 1 AS n", "-c", "SELECT nothing", "-c", "SELECT 3 AS n"], ""),
                        (["-c", script], ""), (["-f", home.path("bad.sql")], ""), ([], script)]:
        out, error, code = home.program(["--format", "ndjson", *args], stdin)
        same((out, code), ('{"n": 1}\n', 1), str(args))
        has(error, "error: no column `nothing`")
    home.program(["-c", "CREATE TABLE sandbox.before (n INT); INSERT INTO sandbox.before VALUES (1); SELECT x; "
                        "INSERT INTO sandbox.before VALUES (2)"], code=1)
    same(home.value("SELECT n FROM sandbox.before"), [[1]])
    home.program(["-c", "DROP TABLE sandbox.before"], code=0)
    _, error, _ = home.program(["-f", home.path("missing.sql")], code=1)
    has(error, "missing.sql")


@case
def rows_before_an_error(home):
    """Rows that came before an error within a query are written, and the code is 1."""
    query = ("SELECT CAST(t AS INT) AS n FROM (SELECT CASE WHEN value < 150000 THEN '1' ELSE 'x' END AS t "
             "FROM generate_series(1, 200000))")
    out, error, code = home.program(["--format", "ndjson", "-c", query])
    same(code, 1)
    has(error, "error:")
    assert out.startswith('{"n": 1}\n') and out.endswith("}\n"), out[:100]


# Faults of the product that are still to be mended: told, and not hidden.
KNOWN = set()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary")
    parser.add_argument("--only", default="", help="cases whose name fits this pattern")
    parser.add_argument("--list", action="store_true", help="say what each case proves")
    args = parser.parse_args()
    chosen = [it for it in CASES if re.search(args.only, it.__name__)]
    if args.list:
        for it in chosen:
            print(f"{it.__name__}: {' '.join(it.__doc__.split())}")
        return 0
    home, failed, known = Home(args.binary), 0, 0
    try:
        for it in chosen:
            home.new_case()
            started = time.monotonic()
            try:
                it(home)
                print(f"ok   {it.__name__} ({time.monotonic() - started:.1f} s)")
            except Exception as error:
                if it.__name__ in KNOWN:
                    known += 1
                    print(f"known {it.__name__}: {error}")
                    continue
                failed += 1
                print(f"FAIL {it.__name__}: {' '.join(it.__doc__.split())}")
                frame = next(f for f in traceback.extract_tb(error.__traceback__) if f.name == it.__name__)
                print(f"  line {frame.lineno}: {frame.line}\n  {type(error).__name__}: {error}")
                for terminal in home.terminals[-1:]:
                    print("  the screen:")
                    print("".join(f"  | {line}\n" for line in terminal.screen.text().split("\n")[-40:]))
            sys.stdout.flush()
    finally:
        shutil.rmtree(home.folder, ignore_errors=True)
    print(f"{len(chosen) - failed - known} passed, {failed} failed, {known} known to fail")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

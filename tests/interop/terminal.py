"""A terminal for tests: a program on a pseudo-terminal, and the screen as a person would see it.

The screen keeps every line that scrolled away, so a test can look at all that was shown since some row.
Only what our programs send is understood: moving, erasing, colours, wrapping and wide letters.
"""
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
import unicodedata

KEYS = {"enter": "\r", "tab": "\t", "up": "\x1b[A", "down": "\x1b[B", "ctrl-c": "\x03", "ctrl-d": "\x04",
        "ctrl-r": "\x12", "backspace": "\x7f"}
PASTE = "\x1b[200~{}\x1b[201~"
# The line editor switches bracketed paste on whenever it begins to read a line.
READS = b"\x1b[?2004h"
SEQUENCE = re.compile(rb"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][0-9A-Za-z]|[=>78cDEHMNOZ])")
COLOUR = re.compile(rb"\x1b\[[0-9;]*m")


class Timeout(AssertionError):
    """What was waited for did not come."""


class Screen:
    """Rows of cells; a wide letter's second cell is empty."""

    def __init__(self, columns, rows):
        self.columns, self.rows = columns, rows
        self.lines, self.row, self.column = [[]], 0, 0
        self.wraps = False

    def feed(self, text):
        """Takes what a program sent; returns what is not complete yet."""
        at = 0
        while at < len(text):
            first = text[at:at + 1]
            if first == b"\x1b":
                found = SEQUENCE.match(text, at)
                if not found:
                    return text[at:] if len(text) - at < 32 else text[at + 1:]
                self.sequence(found.group(1).decode("ascii", "replace"))
                at = found.end()
            elif first < b" " or first == b"\x7f":
                self.control(first)
                at += 1
            else:
                size = 1 if first < b"\x80" else 2 if first < b"\xe0" else 3 if first < b"\xf0" else 4
                if at + size > len(text):
                    return text[at:]
                self.put(text[at:at + size].decode("utf-8", "replace"))
                at += size
        return b""

    def control(self, letter):
        self.wraps = False
        if letter == b"\r":
            self.column = 0
        elif letter == b"\n":
            self.down()
        elif letter == b"\b":
            self.column = max(0, self.column - 1)
        elif letter == b"\t":
            self.column = min(self.columns - 1, (self.column // 8 + 1) * 8)

    def down(self):
        self.row += 1
        while len(self.lines) <= self.row:
            self.lines.append([])

    def top(self):
        return max(0, len(self.lines) - self.rows)

    def put(self, letter):
        width = 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        if unicodedata.combining(letter):
            return
        if self.wraps or self.column + width > self.columns:
            self.column = 0
            self.down()
        line = self.lines[self.row]
        line.extend(" " * (self.column + width - len(line)))
        line[self.column:self.column + width] = [letter] + [""] * (width - 1)
        self.column += width
        self.wraps = self.column >= self.columns
        self.column = min(self.column, self.columns - 1)

    def sequence(self, text):
        if text[0] != "[" or text[1:2] in "?>=" or text[-1] == "m":
            return
        self.wraps = False
        numbers = [int(it) if it.isdigit() else 0 for it in text[1:-1].split(";")]
        kind, number = text[-1], numbers[0]
        if kind in "AF":
            self.row = max(self.top(), self.row - max(1, number))
        elif kind in "BE":
            self.row = min(len(self.lines) - 1, self.row + max(1, number))
        elif kind == "C":
            self.column = min(self.columns - 1, self.column + max(1, number))
        elif kind == "D":
            self.column = max(0, self.column - max(1, number))
        elif kind == "G":
            self.column = max(1, number) - 1
        elif kind == "H":
            self.row = self.top() + max(1, number) - 1
            self.column = max(1, numbers[1] if len(numbers) > 1 else 1) - 1
            while len(self.lines) <= self.row:
                self.lines.append([])
        elif kind == "K":
            self.erase(self.row, number)
        elif kind == "J":
            first = self.top() if number else self.row + 1
            for row in range(first, len(self.lines)):
                if row != self.row:
                    self.lines[row] = []
            self.erase(self.row, number)
        if kind in "EF":
            self.column = 0

    def erase(self, row, which):
        line = self.lines[row]
        if which == 0:
            del line[self.column:]
        elif which == 1:
            line[:self.column + 1] = " " * min(len(line), self.column + 1)
        else:
            line.clear()

    def text(self, since=0):
        """The lines from a row on, without the blank ones at the end."""
        lines = ["".join(it).rstrip() for it in self.lines[since:]]
        while lines and not lines[-1]:
            lines.pop()
        return "\n".join(lines)


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, command, env, folder, columns=100, rows=30, prompt="icefield>", wait=30):
        self.prompt, self.wait, self.code = prompt, wait, None
        self.screen, self.raw, self.rest = Screen(columns, rows), b"", b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.chdir(folder)
                os.execvpe(command[0], command, env)
            finally:
                os._exit(127)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def resize(self, columns, rows=30):
        self.screen.columns, self.screen.rows = columns, rows
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        """Takes what comes within some time; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            more = os.read(self.fd, 1 << 16)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            more = b""
        self.raw += more
        self.rest = self.screen.feed(self.rest + more)
        return bool(more)

    def until(self, holds, what):
        """Waits until a condition holds."""
        end = time.monotonic() + self.wait
        while not holds():
            if time.monotonic() > end:
                raise Timeout(f"waited for {what}")
            if not self.read(0.2):
                if holds():
                    return
                raise Timeout(f"the program ended; waited for {what}")

    def expect(self, text, since=0):
        """Waits until a text is on the screen."""
        self.until(lambda: text in self.screen.text(since), f"{text!r}")

    def send(self, text):
        data = text.encode()
        while data:
            data = data[os.write(self.fd, data):]

    def key(self, *names):
        for name in names:
            self.send(KEYS[name])

    def reads(self):
        return self.raw.count(READS)

    def ready(self, more_than=0):
        """Waits until the prompt stands on the last line, waiting for a statement."""
        last = lambda: self.screen.text().rsplit("\n", 1)[-1]
        self.until(lambda: self.reads() > more_than and last() == self.prompt, "the prompt")

    def type(self, text):
        """Types on the line, and waits until it is shown."""
        row = self.screen.row
        self.send(text)
        shown = " ".join(text.split())
        self.until(lambda: shown in " ".join(self.screen.text(row).split()), f"{text!r} to be shown")

    def run(self, text, end="\r"):
        """Types a line, and returns what is shown from there to the next prompt."""
        reads, row = self.reads(), self.screen.row
        self.send(text + end)
        self.ready(reads)
        return self.screen.text(row).rsplit("\n", 1)[0]

    def ends(self):
        """Waits for the program's end, and returns its exit code."""
        try:
            self.until(lambda: False, "the end")
        except Timeout as error:
            if "ended" not in str(error):
                raise
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

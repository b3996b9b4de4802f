#!/usr/bin/env python3
"""Runs a command on a terminal of its own, and types a line each time that it asks for a secret.

usage: typed.py FILE COMMAND...

FILE has the lines. What the terminal showed goes to standard output, and the command's exit code is the script's.
"""

import os
import pty
import re
import sys

# What a log says comes behind it at any moment.
QUESTION = re.compile(rb"(Password|Passphrase) of [^\r\n]*?: ")


def main():
    with open(sys.argv[1], "rb") as file:
        lines = file.read().splitlines(keepends=True)
    process, terminal = pty.fork()
    if process == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    shown, answered = b"", 0
    while True:
        try:
            part = os.read(terminal, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
        while lines and len(QUESTION.findall(shown)) > answered:
            os.write(terminal, lines.pop(0))
            answered += 1
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


main()

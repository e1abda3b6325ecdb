"""The code in README.md, for the tests and for CI.

Run as a script it prints the n-th block (from 1) of a language, or all of them.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def blocks(language):
    """Return the fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    found = blocks(sys.argv[1])
    print("\n".join(found) if len(sys.argv) == 2 else found[int(sys.argv[2]) - 1])

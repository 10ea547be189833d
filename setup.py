"""Makes the description for a package index from the README; setup.cfg has everything else.

An index has no other file of the repository, so its page can show no relative image and follow no relative link.
"""

import re
from pathlib import Path

from setuptools import setup

RELATIVE = r"\((?![a-z]+:)[^)\s]+\)"


def description() -> str:
    """The README without relative images, and with the text of relative links in place of the links."""
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    text = re.sub(rf"^!\[[^\]]*\]{RELATIVE}\n\n", "", text, flags=re.MULTILINE)
    text = re.sub(rf"(?<!!)\[([^\]]+)\]{RELATIVE}", r"\1", text)
    note = "The documents, the example and the changelog are in the source distribution."
    return text.replace("\n## Read on\n", f"\n## Read on\n\n{note}\n")


setup(long_description=description(), long_description_content_type="text/markdown")

#!/usr/bin/env python3
"""Writes the help topics of this Python as plain text: a text found on every machine."""
import pathlib
import sys

from pydoc_data import topics

out = pathlib.Path(sys.argv[1])
out.write_text("\n\n".join(topics.topics[name] for name in sorted(topics.topics)), encoding="utf-8")

"""Which version of the toolkit this is. CITATION.cff says it too."""

VERSION = "1.0.0"

"""For the site: links to files of the repository become their names.

In the checkout and on GitHub ``[alerts](../deploy/prometheus/alerts.yml)`` leads there; the site has
the pages of docs/ alone. An extension of Python-Markdown, which `make docs` loads.
"""

from __future__ import annotations

from urllib.parse import urlsplit
from xml.etree.ElementTree import Element  # no XML is read

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

PAGES = (".md", ".html")
"""What another page ends in, before and after the site's own rewriting."""


class _RepositoryLinks(Treeprocessor):
    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            path = urlsplit(link.get("href", "")).path
            if path.startswith("../") and not path.endswith(PAGES):
                link.tag = "span"
                link.attrib = {"title": path.lstrip("./")}


class RepositoryLinks(Extension):
    def extendMarkdown(self, md: Markdown) -> None:  # Python-Markdown's name
        md.treeprocessors.register(_RepositoryLinks(md), "repository_links", 0)


def makeExtension(**kwargs: object) -> RepositoryLinks:
    return RepositoryLinks(**kwargs)
